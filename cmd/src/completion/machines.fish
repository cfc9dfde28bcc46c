
# The names of machines, for commands that take one.
complete -c kiln -n "__fish_kiln_using_subcommand console exec inspect kill logs memory pause resume stop" -a "(kiln ps --names 2> /dev/null)" -d machine
complete -c kiln -n "__fish_kiln_using_subcommand port; and __fish_seen_subcommand_from add rm ls" -a "(kiln ps --names 2> /dev/null)" -d machine
complete -c kiln -n "__fish_kiln_using_subcommand cp" -a "(kiln ps --names 2> /dev/null | string replace -r '\$' ':')" -d machine
complete -c kiln -n "__fish_kiln_using_subcommand rm" -a "(kiln ps --all --names 2> /dev/null)" -d machine
