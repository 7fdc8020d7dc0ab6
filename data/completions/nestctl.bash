# SPDX-License-Identifier: LGPL-2.1-or-later
# bash completion for nestctl(1); needs nothing but bash.

_nestctl_offer() {
    local found
    found=$(compgen "$@") && mapfile -t COMPREPLY <<< "$found"
}

# The first column of a table, less its head. compgen -W expands what it is given: only plain names.
_nestctl_column() {
    while read -r name rest; do
        [[ $name == NAME || $name == *[!A-Za-z0-9._-]* || "$name $rest" == "No "* ]] || echo "$name"
    done
}

# What `nestctl "$@"` lists, if nestd runs: to call it would start it.
_nestctl_names() {
    local owned
    owned=$(timeout 2 busctl --system call org.freedesktop.DBus /org/freedesktop/DBus org.freedesktop.DBus \
        NameHasOwner s org.nestd1 2>/dev/null)
    [[ $owned == "b true" ]] && timeout 5 nestctl "$@" --no-ask-password 2>/dev/null </dev/null | _nestctl_column
}

_nestctl_hosts() {
    if declare -F _known_hosts_real >/dev/null; then
        _known_hosts_real -- "$1"  # bash-completion's: those of ssh
    else
        _nestctl_offer -P "$2" -A hostname -- "${1#"$2"}"
    fi
}

_nestctl() {
    local word=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]}
    local commands="status diagnose holders watch enable disable revert cancel launch verify measure cpu list show stop kill console lab"
    local options="--host --machine --bus --no-ask-password --help" command="" elsewhere="" user="" guest="" names="" i

    # bash splits words at `=`, `@` and `:`, each of which is a word then; but not at `@` if bash-completion is there.
    if [[ $word == [=@] ]]; then
        word=""
    elif [[ $previous == "=" ]]; then
        previous=${COMP_WORDS[COMP_CWORD - 2]}
    fi
    [[ $word != *@* ]] || user=${word%@*}@

    COMPREPLY=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        case ${COMP_WORDS[i]} in
            -H | --host | -M | --machine | --bus)
                elsewhere=${COMP_WORDS[i]}
                [[ ${COMP_WORDS[i + 1]-} != "=" ]] || ((i += 1))
                ((i += 1))
                while [[ ${COMP_WORDS[i + 1]-} == [@:] ]]; do
                    ((i += 2))
                done
                ((i < COMP_CWORD)) || previous=$elsewhere
                ;;
            -[HM]?*) elsewhere=${COMP_WORDS[i]} ;;
            *)
                if [[ -z $command && " $commands " == *" ${COMP_WORDS[i]} "* ]]; then
                    command=${COMP_WORDS[i]}
                elif [[ $command == lab && ${COMP_WORDS[i]} == @(create|list|show|start|stop|remove) ]]; then
                    command+=" ${COMP_WORDS[i]}"
                fi
                ;;
        esac
    done

    case $previous in
        -H | --host) _nestctl_hosts "$word" "$user"; return ;;
        -M | --machine)
            names=$(timeout 2 machinectl list --no-legend --no-pager 2>/dev/null </dev/null | _nestctl_column)
            _nestctl_offer -P "$user" -W "$names" -- "${word#"$user"}"
            return
            ;;
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
    case $command in
        "") options="$commands $options --json --version" ;;
        status | diagnose | holders | watch | show) options+=" --json" ;;
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
        measure) options+=" --json --levels --timeout" ;;
        cpu) options+=" --json --qemu --libvirt --cpu --cpu-feature --user" ;;
        stop | "lab stop") options+=" --timeout" ;;
    esac
    case $command in
        show) names="list --all" ;;
        stop | kill | console) names="list" ;;
        "lab show" | "lab start" | "lab stop" | "lab remove") names="lab list" ;;
    esac
    if [[ $word != -* && -n $names ]]; then
        options=""
        # Whoever is asked elsewhere may want a password, or never answer.
        # shellcheck disable=SC2086 # a command of two words
        [[ -n $elsewhere ]] || options=$(_nestctl_names $names)
    fi
    _nestctl_offer -W "$options" -- "$word"
}

complete -F _nestctl nestctl
