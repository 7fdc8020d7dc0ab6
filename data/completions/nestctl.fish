# SPDX-License-Identifier: LGPL-2.1-or-later
# fish completion for nestctl(1).

# The command that stands before the cursor, with that of `lab`; empty if there is none yet.
function __nestctl_command
    set -l found
    set -l value
    for word in (commandline -opc)[2..]
        if set -q value[1]
            set value
            continue
        end
        switch $word
            case -H --host -M --machine --bus
                set value follows
            case '-*'
            case '*'
                set -a found $word
                test "$found" = lab; or break
        end
    end
    echo "$found"
end

function __nestctl_at
    contains -- (__nestctl_command) $argv
end

# The first column of a table, less its head: only plain names.
function __nestctl_column
    while read -l name rest
        contains -- $name NAME No; or string match -r '^[A-Za-z0-9._-]+$' -- $name
    end
end

# What `nestctl $argv` lists, if the nestd of this machine runs: to call it would start it. Whoever is asked elsewhere may want
# a password, or never answer.
function __nestctl_names
    commandline -opc | string match -q -r '^(-[HM]|--host|--machine|--bus)'; and return
    set -l bus org.freedesktop.DBus /org/freedesktop/DBus org.freedesktop.DBus
    set -l owned (timeout 2 busctl --system call $bus NameHasOwner s org.nestd1 2>/dev/null)
    test "$owned" = 'b true'; or return
    timeout 5 nestctl $argv --no-ask-password 2>/dev/null </dev/null | __nestctl_column
end

function __nestctl_machines
    set -l user (commandline -ct | string replace -r '^(-M|--machine=)' '' | string match -r '^[^@]*@'; or echo)
    set -l names (timeout 2 machinectl list --no-legend --no-pager 2>/dev/null </dev/null | __nestctl_column)
    printf '%s\n' $user$names
end

complete -c nestctl -f

# With every command.
complete -c nestctl -s h -l help -d 'say what there is to say'
complete -c nestctl -s H -l host -xa '(__fish_complete_user_at_hosts)' -d 'do it on another machine, over ssh'
complete -c nestctl -s M -l machine -xa '(__nestctl_machines)' -d 'do it in a local container or machine'
complete -c nestctl -l bus -xa 'system session' -d 'for developers'
complete -c nestctl -l no-ask-password -d 'never ask for a password'

complete -c nestctl -n '__nestctl_at ""' -l version -d 'say which version it is'
complete -c nestctl -n '__nestctl_at "" status diagnose holders watch list show enable disable revert launch verify measure cpu "lab create" "lab list" "lab show"' -l json -d 'print JSON'

# Commands.
complete -c nestctl -n '__nestctl_at ""' -a status -d 'tell whether guests get nesting, now and after the next boot'
complete -c nestctl -n '__nestctl_at ""' -a diagnose -d 'look at all that nesting needs, and say what is wrong and what to do'
complete -c nestctl -n '__nestctl_at ""' -a holders -d 'tell who uses KVM, so that its driver cannot be reloaded'
complete -c nestctl -n '__nestctl_at ""' -a watch -d 'tell what happens, a line each'
complete -c nestctl -n '__nestctl_at ""' -a enable -d 'turn nesting on'
complete -c nestctl -n '__nestctl_at ""' -a disable -d 'turn nesting off, provably'
complete -c nestctl -n '__nestctl_at ""' -a revert -d 'take back all that was set for the next boots'
complete -c nestctl -n '__nestctl_at ""' -a cancel -d 'forget the change that waits until nobody uses KVM'
complete -c nestctl -n '__nestctl_at ""' -a launch -d 'start a guest'
complete -c nestctl -n '__nestctl_at ""' -a verify -d 'prove that nesting works here, in a guest of a guest'
complete -c nestctl -n '__nestctl_at ""' -a measure -d 'tell what virtualization costs on this machine'
complete -c nestctl -n '__nestctl_at ""' -a cpu -d 'print a CPU that can nest, for QEMU and for libvirt'
complete -c nestctl -n '__nestctl_at ""' -a list -d 'list the guests'
complete -c nestctl -n '__nestctl_at ""' -a show -d 'tell everything about a guest'
complete -c nestctl -n '__nestctl_at ""' -a stop -d 'press the guest\'s power button, and stop it if that does not help'
complete -c nestctl -n '__nestctl_at ""' -a kill -d 'end a guest at once'
complete -c nestctl -n '__nestctl_at ""' -a console -d 'use a guest\'s serial console'
complete -c nestctl -n '__nestctl_at ""' -a lab -d 'have guests on a network of their own'
complete -c nestctl -n '__nestctl_at lab' -a create -d 'make guests on a network of their own, and start them'
complete -c nestctl -n '__nestctl_at lab' -a list -d 'list the labs'
complete -c nestctl -n '__nestctl_at lab' -a show -d 'tell everything about a lab'
complete -c nestctl -n '__nestctl_at lab' -a start -d 'start the guests of a lab that do not run'
complete -c nestctl -n '__nestctl_at lab' -a stop -d 'press the power buttons of a lab\'s guests, and stop those that this does not help'
complete -c nestctl -n '__nestctl_at lab' -a remove -d 'end a lab\'s guests at once, and forget the lab with its own disks'

# Names.
complete -c nestctl -n '__nestctl_at show' -a '(__nestctl_names list --all)' -d guest
complete -c nestctl -n '__nestctl_at stop kill console' -a '(__nestctl_names list)' -d guest
complete -c nestctl -n '__nestctl_at "lab show" "lab start" "lab stop" "lab remove"' -a '(__nestctl_names lab list)' -d lab

# Changes.
complete -c nestctl -n '__nestctl_at enable disable' -l scope -xa 'both runtime boot' -d 'what to change'
complete -c nestctl -n '__nestctl_at enable disable' -l runtime -d 'the running kernel only'
complete -c nestctl -n '__nestctl_at enable disable' -l boot -d 'the configuration only'
complete -c nestctl -n '__nestctl_at enable disable' -l when-idle -d 'if KVM is in use, do it as soon as nobody uses it any more'
complete -c nestctl -n '__nestctl_at enable disable' -l replace -d 'take away what others put on the kernel command line and that says otherwise'
complete -c nestctl -n '__nestctl_at enable disable' -l loader -xa 'grub kernel-install grubby rpm-ostree ostree bootc' -d 'who writes the kernel command line'
complete -c nestctl -n '__nestctl_at enable disable revert' -l dry-run -d 'tell the steps and do nothing'

# Guests.
complete -c nestctl -n '__nestctl_at launch verify cpu "lab create"' -l cpu -x -d 'host, or a QEMU model'
complete -c nestctl -n '__nestctl_at launch verify cpu "lab create"' -l cpu-feature -x -d 'add (+) or take away (-) a CPU flag'
complete -c nestctl -n '__nestctl_at launch verify cpu "lab create"' -l user -xa '(__fish_complete_users)' -d 'run QEMU as this user'
complete -c nestctl -n '__nestctl_at launch "lab create"' -l memory -x -d 'such as 2G'
complete -c nestctl -n '__nestctl_at launch "lab create"' -l vcpus -x -d 'how many virtual CPUs'
complete -c nestctl -n '__nestctl_at launch "lab create"' -l disk -x -d 'path=FILE,format=raw|qcow2[,readonly][,snapshot]'
complete -c nestctl -n '__nestctl_at launch "lab create"' -l cdrom -rF -d 'a CD image'
complete -c nestctl -n '__nestctl_at launch "lab create"' -l kernel -rF -d 'boot this kernel'
complete -c nestctl -n '__nestctl_at launch "lab create"' -l initrd -rF -d 'its initial file system'
complete -c nestctl -n '__nestctl_at launch "lab create"' -l append -x -d 'its command line'
complete -c nestctl -n '__nestctl_at launch "lab create"' -l firmware -xa 'bios uefi' -d 'what boots the guest'
complete -c nestctl -n '__nestctl_at launch "lab create"' -l vnc -d 'a screen for VNC'
complete -c nestctl -n '__nestctl_at launch "lab create"' -l user-data -rF -d 'cloud-init\'s user data'
complete -c nestctl -n '__nestctl_at launch "lab create"' -l extra-arg -x -d 'hand this to QEMU as it is'
complete -c nestctl -n '__nestctl_at launch "lab create"' -l allow-no-nesting -d 'start even if the guest cannot get the extension'
complete -c nestctl -n '__nestctl_at launch' -l network -xa 'none user lab=' -d 'what its network card is plugged into'
complete -c nestctl -n '__nestctl_at launch' -l forward -x -d '[tcp|udp:][ADDRESS:]HOSTPORT-GUESTPORT'
complete -c nestctl -n '__nestctl_at launch' -l console -d 'attach to the console afterwards'
complete -c nestctl -n '__nestctl_at launch console' -l escape -x -d 'the key that leaves the console, such as ^A'
complete -c nestctl -n '__nestctl_at "lab create"' -l nodes -x -d 'how many guests, 1 to 16'
complete -c nestctl -n '__nestctl_at "lab create"' -l subnet -x -d 'their IPv4 addresses'
complete -c nestctl -n '__nestctl_at list' -l all -d 'also those that have ended lately'
complete -c nestctl -n '__nestctl_at verify measure stop "lab stop"' -l timeout -x -d 'seconds that the guest has'

# Proof.
complete -c nestctl -n '__nestctl_at measure' -l levels -d 'measure a guest\'s guest, too'
complete -c nestctl -n '__nestctl_at cpu' -l qemu -d 'print QEMU\'s -cpu alone'
complete -c nestctl -n '__nestctl_at cpu' -l libvirt -d 'print libvirt\'s domain XML alone'
