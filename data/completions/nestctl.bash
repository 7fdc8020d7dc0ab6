# SPDX-License-Identifier: LGPL-2.1-or-later
# bash completion for nestctl(1); needs nothing but bash.

_nestctl_offer() {
    local found
    found=$(compgen "$@") && mapfile -t COMPREPLY <<< "$found"
}

_nestctl() {
    local word=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]}
    local commands="status diagnose holders enable disable revert cancel launch verify measure cpu list show stop kill console lab"
    local options="--bus --no-ask-password --help" command="" guest="" verb="" names="" i

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
    if [[ $command == lab ]]; then
        for ((i = i + 1; i < COMP_CWORD; i++)); do
            if [[ ${COMP_WORDS[i]} == @(create|list|show|start|stop|remove) ]]; then
                verb=${COMP_WORDS[i]}
                break
            fi
        done
    fi

    case $previous in
        --bus) _nestctl_offer -W "system session" -- "$word"; return ;;
        --loader) _nestctl_offer -W "grub kernel-install grubby rpm-ostree ostree bootc" -- "$word"; return ;;
        --scope) _nestctl_offer -W "both runtime boot" -- "$word"; return ;;
        --user) _nestctl_offer -u -- "$word"; return ;;
        --firmware) _nestctl_offer -W "bios uefi" -- "$word"; return ;;
        --network) _nestctl_offer -W "none user lab=" -- "$word"; return ;;
        --kernel | --initrd | --cdrom | --user-data)
            compopt -o filenames 2>/dev/null
            _nestctl_offer -f -- "$word"
            return
            ;;
        --cpu | --cpu-feature | --memory | --vcpus | --disk | --append | --timeout | --forward | --escape | --extra-arg | --nodes | --subnet) return ;;
    esac

    guest=" --cpu --cpu-feature --memory --vcpus --disk --cdrom --kernel --initrd --append --firmware --vnc --user-data"
    guest+=" --extra-arg --user --allow-no-nesting"
    case $command${verb:+ $verb} in
        "") options="$commands $options --json --version" ;;
        status | diagnose | holders | show) options+=" --json" ;;
        list) options+=" --json --all" ;;
        console) options+=" --escape" ;;
        enable | disable)
            options+=" --json --scope --runtime --boot --when-idle --replace --loader --dry-run"
            ;;
        revert) options+=" --json --dry-run" ;;
        launch)
            options+="$guest --json --network --forward --console --escape"
            ;;
        lab) options+=" create list show start stop remove" ;;
        "lab create") options+="$guest --json --nodes --subnet" ;;
        "lab list" | "lab show") options+=" --json" ;;
        verify) options+=" --json --cpu --cpu-feature --user --timeout" ;;
        measure) options+=" --json --levels" ;;
        cpu) options+=" --json --qemu --libvirt --cpu --cpu-feature --user" ;;
        stop | "lab stop") options+=" --timeout" ;;
    esac
    case $command${verb:+ $verb} in
        show) names="list --all" ;;
        stop | kill | console) names="list" ;;
        "lab show" | "lab start" | "lab stop" | "lab remove") names="lab list" ;;
    esac
    if [[ $word != -* && -n $names ]]; then
        # The first column of the table, less its head. compgen -W expands what it is given: only plain names.
        # shellcheck disable=SC2086 # a command of two words
        options=$(nestctl $names --no-ask-password 2>/dev/null | while read -r name rest; do
            [[ $name == NAME || $name == *[!A-Za-z0-9._-]* || "$name $rest" == "No "* ]] || echo "$name"
        done)
    fi
    _nestctl_offer -W "$options" -- "$word"
}

complete -F _nestctl nestctl
