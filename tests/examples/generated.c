/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a client has of the code that gdbus-codegen makes of data/org.nestd1.xml: typed properties and calls. */
#include "nestd-bus.h"

int main(void) {
        g_autoptr(GError) error = NULL;
        g_autoptr(GVariant) status = NULL, result = NULL;
        g_autofree char *source = NULL, *guest = NULL, *remote = NULL;
        g_autoptr(NestdManager) manager = nestd_manager_proxy_new_for_bus_sync(
                G_BUS_TYPE_SYSTEM, G_DBUS_PROXY_FLAGS_NONE, "org.nestd1", "/org/nestd1", NULL, &error);

        if (!manager || !nestd_manager_call_get_status_sync(manager, &status, NULL, &error))
                g_error("%s", error->message);
        if (!g_variant_lookup(status, "boot-source", "s", &source))
                g_error("no boot-source");
        g_print("%s %s %s\n", nestd_manager_get_nested(manager), nestd_manager_get_driver(manager), source);

        GVariantDict options;
        g_variant_dict_init(&options, NULL);
        g_variant_dict_insert(&options, "scope", "s", "runtime");
        if (!nestd_manager_call_disable_sync(manager, g_variant_dict_end(&options), &result, NULL, &error))
                g_error("%s", error->message);
        g_print("%s\n", g_variant_print(result, FALSE));

        if (nestd_manager_call_get_guest_sync(manager, "nobody", &guest, NULL, &error))
                g_error("there is a guest");
        remote = g_dbus_error_get_remote_error(error);
        g_print("%s\n", remote);
        return 0;
}
