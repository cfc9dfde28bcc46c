
# The names of machines; also a path, which stands for one too.
_kiln_machines() {
    local -a names
    names=(${(f)"$(_call_program machines kiln ps --all --names 2> /dev/null)"})
    compadd -a names
    _files
}
