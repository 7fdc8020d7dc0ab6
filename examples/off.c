/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Turn nesting off in the running kernel, provably, and if KVM is in use tell by whom. With sd-bus.
 *
 *   cc examples/off.c -o off $(pkg-config --cflags --libs libsystemd)
 *
 * Ends with 0 where it is off, 3 where polkit refuses, 5 where KVM is in use, 1 with everything else.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-bus.h>

#define MANAGER "org.nestd1", "/org/nestd1", "org.nestd1.Manager"
#define CLEANUP(what) __attribute__((cleanup(what)))

static int show_holders(sd_bus *bus) {
        CLEANUP(sd_bus_message_unrefp) sd_bus_message *reply = NULL;
        const char *command, *unit, *machine;
        unsigned pid;
        int r = sd_bus_call_method(bus, MANAGER, "ListHolders", NULL, &reply, NULL);

        if (r >= 0)
                r = sd_bus_message_enter_container(reply, 'a', "(usss)");
        while (r >= 0 && (r = sd_bus_message_read(reply, "(usss)", &pid, &command, &unit, &machine)) > 0)
                printf("%8u  %s  %s\n", pid, command, *machine ? machine : unit);
        return r;
}

static int failed(sd_bus *bus, const sd_bus_error *error) {
        fprintf(stderr, "%s\n", error->message);
        if (sd_bus_error_has_name(error, "org.nestd1.Error.InUse"))
                return show_holders(bus) < 0 ? 1 : 5;
        if (sd_bus_error_has_name(error, SD_BUS_ERROR_ACCESS_DENIED) ||
            sd_bus_error_has_name(error, SD_BUS_ERROR_INTERACTIVE_AUTHORIZATION_REQUIRED))
                return 3;
        if (sd_bus_error_has_name(error, "org.nestd1.Error.RollbackFailed"))
                fprintf(stderr, "The old state could not be put back: see nestctl diagnose.\n");
        else if (sd_bus_error_has_name(error, SD_BUS_ERROR_SERVICE_UNKNOWN))
                fprintf(stderr, "Is nestd installed, and does it start? systemctl status nestd\n");
        return 1;
}

int main(void) {
        CLEANUP(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
        CLEANUP(sd_bus_message_unrefp) sd_bus_message *call = NULL, *reply = NULL;
        CLEANUP(sd_bus_flush_close_unrefp) sd_bus *bus = NULL;
        CLEANUP(sd_bus_error_free) sd_bus_error unread = SD_BUS_ERROR_NULL;
        char *nested = NULL;
        int r;

        if ((r = sd_bus_open_system(&bus)) < 0 ||
            (r = sd_bus_message_new_method_call(bus, &call, MANAGER, "Disable")) < 0 ||
            (r = sd_bus_message_append(call, "a{sv}", 1, "scope", "s", "runtime")) < 0 ||
            /* polkit may ask for a password. */
            (r = sd_bus_message_set_allow_interactive_authorization(call, 1)) < 0) {
                fprintf(stderr, "The system bus cannot be used: %s\n", strerror(-r));
                return 1;
        }
        /* Ten minutes: somebody may have to find that password. It is read back before the answer comes. */
        if (sd_bus_call(bus, call, 600ULL * 1000 * 1000, &error, &reply) < 0)
                return failed(bus, &error);
        /* What KVM itself offers to guests from now on. */
        if (sd_bus_get_property_string(bus, MANAGER, "Nested", &unread, &nested) < 0)
                return failed(bus, &unread);
        printf("Nesting is %s.\n", nested);
        r = strcmp(nested, "on") == 0;
        free(nested);
        return r;
}
