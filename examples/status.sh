#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Do guests get nesting, now and after the next boot, and who decides that? With busctl and jq.
#
#   examples/status.sh
#
# Ends with 0 where nesting is on, 1 where it is off, 2 where it cannot be had, 3 where nestd cannot be asked.
set -euo pipefail

nestd=(org.nestd1 /org/nestd1 org.nestd1.Manager)

# One call, so that all of it is of one moment. Reading needs no authorization.
if ! answer=$(busctl --system --json=short call "${nestd[@]}" GetStatus 2>&1); then
    # busctl gives the text of an error and not its name: whether there is a nestd is asked of the bus.
    has=(org.freedesktop.DBus /org/freedesktop/DBus org.freedesktop.DBus NameHasOwner s "${nestd[0]}")
    case $(busctl --system call "${has[@]}" 2>&1) in
        "b false") echo "nestd is not running and could not be started: systemctl status nestd" >&2 ;;
        "b true") echo "nestd does not tell: $answer" >&2 ;;
        *) echo "There is no system bus to be reached: $answer" >&2 ;;
    esac
    exit 3
fi

# Each value comes with its type: {"nested": {"type": "s", "data": "on"}, ...}
of() { jq -r --arg key "$1" '.data[0][$key].data // "" | if type == "array" then .[] else . end' <<< "$answer"; }

nested=$(of nested)
echo "Guests get nesting now: $nested"
echo "At the next boot:       $(of nested-at-boot), says $(of boot-source)"
of overridden | sed 's/^/Overridden:             /'
if [ "$(of reboot-required)" = true ]; then echo "A reboot is needed to settle it."; fi
if [ -n "$(of pending-change)" ]; then echo "Waits until KVM is idle:  nesting $(of pending-change)"; fi
if [ -n "$(of drift)" ]; then echo "Not what nestd was told: $(of drift)"; fi
if [ -n "$(of obstacle)" ]; then
    echo "In the way:             $(of obstacle): $(of obstacle-meaning)"
    echo "To do:                  $(of obstacle-remedy)"
fi

case $nested in
    on) exit 0 ;;
    off) exit 1 ;;
    *) exit 2 ;;
esac
