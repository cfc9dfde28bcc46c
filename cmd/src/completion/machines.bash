
# The names of machines, for commands that take one.
_kiln_and_machines() {
    _kiln "$@"
    [[ $2 != -* ]] || return 0
    local word command='' names
    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
        [[ $word == -* ]] || { command=$word; break; }
    done
    case $command in
        console|cp|exec|inspect|kill|logs|memory|pause|port|resume|stop) names=$(kiln ps --names 2> /dev/null) ;;
        rm) names=$(kiln ps --all --names 2> /dev/null) ;;
        *) return 0 ;;
    esac
    if [[ $command == port && $COMP_CWORD -lt 3 ]]; then
        return 0
    elif [[ $command == cp ]]; then
        # A colon comes behind the name, and then a path.
        names=${names//$'\n'/: }${names:+:}
        compopt -o nospace 2> /dev/null
    elif [[ $command != kill && $command != rm && $command != stop ]]; then
        # Behind the one name come other words.
        for word in "${COMP_WORDS[@]:2:COMP_CWORD-2}"; do
            [[ -z $word || $'\n'$names$'\n' != *$'\n'"$word"$'\n'* ]] || return 0
        done
    fi
    COMPREPLY=($(compgen -W "$names" -- "$2") "${COMPREPLY[@]}")
}
if [[ "${BASH_VERSINFO[0]}" -eq 4 && "${BASH_VERSINFO[1]}" -ge 4 || "${BASH_VERSINFO[0]}" -gt 4 ]]; then
    complete -F _kiln_and_machines -o nosort -o bashdefault -o default kiln
else
    complete -F _kiln_and_machines -o bashdefault -o default kiln
fi
