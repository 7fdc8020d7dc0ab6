# SPDX-License-Identifier: LGPL-2.1-or-later
# bash completion for nestctl(1); needs nothing but bash.

_nestctl_offer() {
    local found
    found=$(compgen "$@") && mapfile -t COMPREPLY <<< "$found"
}

_nestctl() {
    local word=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]}
    local commands="status diagnose holders enable disable revert cancel launch list show stop kill console"
    local options="--bus --no-ask-password --help" command="" i

    # bash splits `--option=value` at the `=`.
    if [[ $word == "=" ]]; then
        word=""
    elif [[ $previous == "=" ]]; then
        previous=${COMP_WORDS[COMP_CWORD - 2]}
    fi

    COMPREPLY=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        if [[ ${COMP_WORDS[i]} == [a-z]* && " $commands " == *" ${COMP_WORDS[i]} "* ]]; then
            command=${COMP_WORDS[i]}
            break
        fi
    done

    case $previous in
        --bus) _nestctl_offer -W "system session" -- "$word"; return ;;
        --loader) _nestctl_offer -W "grub kernel-install grubby rpm-ostree ostree bootc" -- "$word"; return ;;
        --scope) _nestctl_offer -W "both runtime boot" -- "$word"; return ;;
        --user) _nestctl_offer -u -- "$word"; return ;;
        --kernel | --initrd)
            compopt -o filenames 2>/dev/null
            _nestctl_offer -f -- "$word"
            return
            ;;
        --cpu | --cpu-feature | --memory | --vcpus | --disk | --append | --timeout) return ;;
    esac

    case $command in
        "") options="$commands $options --json --version" ;;
        status | diagnose | holders | list | show) options+=" --json" ;;
        enable | disable)
            options+=" --json --scope --runtime --boot --when-idle --replace --loader --dry-run"
            ;;
        revert) options+=" --json --dry-run" ;;
        launch)
            options+=" --json --cpu --cpu-feature --memory --vcpus --disk --kernel --initrd --append --user"
            options+=" --allow-no-nesting --console"
            ;;
        stop) options+=" --timeout" ;;
    esac
    if [[ $word != -* && $command == @(show|stop|kill|console) ]]; then
        # The first column of the table, less its head. compgen -W expands what it is given: only plain names.
        options=$(nestctl list --no-ask-password 2>/dev/null | while read -r name rest; do
            [[ $name == NAME || $name == *[!A-Za-z0-9._-]* || "$name $rest" == "No guests." ]] || echo "$name"
        done)
    fi
    _nestctl_offer -W "$options" -- "$word"
}

complete -F _nestctl nestctl
