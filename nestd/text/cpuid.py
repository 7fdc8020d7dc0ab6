# SPDX-License-Identifier: LGPL-2.1-or-later
"""QEMU's names for the bits of CPUID (target/i386/cpu.c, feature_word_info), and the kernel's for them."""

from __future__ import annotations

from collections.abc import Iterable

REGISTERS = frozenset({"EAX", "EBX", "ECX", "EDX"})

# (leaf, subleaf, register) → the names from bit 0 on; `-` is a bit without a name.
_WORDS = {
    (1, 0, "EDX"): (
        "fpu vme de pse tsc msr pae mce cx8 apic - sep mtrr pge mca cmov pat pse36 pn clflush - ds "
        "acpi mmx fxsr sse sse2 ss ht tm ia64 pbe"
    ),
    (1, 0, "ECX"): (
        "pni pclmulqdq dtes64 monitor ds-cpl vmx smx est tm2 ssse3 cid - fma cx16 xtpr pdcm - pcid "
        "dca sse4.1 sse4.2 x2apic movbe popcnt tsc-deadline aes xsave - avx f16c rdrand hypervisor"
    ),
    (6, 0, "EAX"): "- - arat",
    (7, 0, "EBX"): (
        "fsgsbase tsc-adjust sgx bmi1 hle avx2 fdp-excptn-only smep bmi2 erms invpcid rtm - zero-fcs-fds mpx "
        "- avx512f avx512dq rdseed adx smap avx512ifma pcommit clflushopt clwb intel-pt avx512pf avx512er "
        "avx512cd sha-ni avx512bw avx512vl"
    ),
    (7, 0, "ECX"): (
        "- avx512vbmi umip pku - waitpkg avx512vbmi2 - gfni vaes vpclmulqdq avx512vnni avx512bitalg "
        "- avx512-vpopcntdq - la57 - - - - - rdpid - bus-lock-detect cldemote - movdiri movdir64b - sgxlc pks"
    ),
    (7, 0, "EDX"): (
        "- - avx512-4vnniw avx512-4fmaps fsrm - - - avx512-vp2intersect - md-clear - - - serialize - "
        "tsx-ldtrk - - arch-lbr - - amx-bf16 avx512-fp16 amx-tile amx-int8 spec-ctrl stibp flush-l1d "
        "arch-capabilities core-capability ssbd"
    ),
    (7, 1, "EAX"): (
        "sha512 sm3 sm4 - avx-vnni avx512-bf16 - cmpccxadd - - fzrm fsrs fsrc - - - - fred lkgs wrmsrns "
        "- amx-fp16 - avx-ifma - - lam"
    ),
    (7, 1, "EDX"): "- - - - avx-vnni-int8 avx-ne-convert - - amx-complex - avx-vnni-int16 - - - prefetchiti",
    (7, 2, "EDX"): "intel-psfd ipred-ctrl rrsba-ctrl ddpd-u bhi-ctrl mcdt-no",
    (0xD, 1, "EAX"): "xsaveopt xsavec xgetbv1 xsaves xfd",
    (0x80000001, 0, "EDX"): (
        "- - - - - - - - - - - syscall - - - - - - - - nx - mmxext - - fxsr-opt pdpe1gb "
        "rdtscp - lm 3dnowext 3dnow"
    ),
    (0x80000001, 0, "ECX"): (
        "lahf-lm cmp-legacy svm extapic cr8legacy abm sse4a misalignsse 3dnowprefetch osvw "
        "ibs xop skinit wdt - lwp fma4 tce - nodeid-msr - tbm topoext perfctr-core perfctr-nb"
    ),
    (0x80000007, 0, "EBX"): "overflow-recov succor",
    (0x80000007, 0, "EDX"): "- - - - - - - - invtsc",
    (0x80000008, 0, "EBX"): (
        "clzero - xsaveerptr - - - - - - wbnoinvd - - ibpb - ibrs amd-stibp - stibp-always-on - - - - - - "
        "amd-ssbd virt-ssbd amd-no-ssb - amd-psfd"
    ),
    (0x8000000A, 0, "EDX"): (
        "npt lbrv svm-lock nrip-save tsc-scale vmcb-clean flushbyasid decodeassists - - "
        "pause-filter - pfthreshold avic - v-vmsave-vmload vgif - - - - - - - - vnmi - - svme-addr-chk"
    ),
    (0x80000021, 0, "EAX"): (
        "no-nested-data-bp - lfence-always-serializing - - - null-sel-clr-base - auto-ibrs - - - - - - - - - "
        "- - - - - - eraps - - sbpb ibpb-brtype srso-no srso-user-kernel-no"
    ),
    (0x80000022, 0, "EAX"): "perfmon-v2",
    (0xC0000001, 0, "EDX"): "- - xstore xstore-en - - xcrypt xcrypt-en ace2 ace2-en phe phe-en pmm pmm-en",
}

# The kernel's names (arch/x86/include/asm/cpufeatures.h) that differ in more than `_` for `-`.
_BY_KERNEL = {
    "ace": "xcrypt",
    "ace_en": "xcrypt-en",
    "avx512_bitalg": "avx512bitalg",
    "avx512_vbmi2": "avx512vbmi2",
    "avx512_vnni": "avx512vnni",
    "cr8_legacy": "cr8legacy",
    "dts": "ds",
    "nonstop_tsc": "invtsc",
    "pausefilter": "pause-filter",
    "rng": "xstore",
    "rng_en": "xstore-en",
    "sgx_lc": "sgxlc",
    "sse4_1": "sse4.1",
    "sse4_2": "sse4.2",
    "tsc_deadline_timer": "tsc-deadline",
    "tsxldtrk": "tsx-ldtrk",
}
# QEMU makes the first two of the number of vCPUs only when the guest asks (cpu_x86_cpuid), so no word has
# them; `vnmi` is Intel's to older kernels, and AMD's to QEMU.
_NOT_COMPARED = frozenset({"ht", "cmp_legacy", "vnmi"})
# What the kernel calls by one name, whichever of the vendors' bits says it (init_speculation_control).
_SAYS_ALSO = {
    "spec-ctrl": frozenset({"ibrs", "ibpb"}),
    "amd-stibp": frozenset({"stibp"}),
    "amd-ssbd": frozenset({"ssbd"}),
    "virt-ssbd": frozenset({"ssbd"}),
}


def names(leaf: int, subleaf: int, register: str, mask: int) -> list[str]:
    """The names of the bits that are set in `mask`; a bit without one as `CPUID.0DH:EAX[bit 3]`."""
    word = _WORDS.get((leaf, subleaf, register), "").split()
    found = []
    for bit in range(32):
        if mask >> bit & 1:
            name = word[bit] if bit < len(word) else "-"
            found.append(name if name != "-" else f"CPUID.{leaf:02X}H:{register}[bit {bit}]")
    return found


def withheld(host: Iterable[str], granted: Iterable[str]) -> frozenset[str]:
    """Which of this machine's flags, `host`, the vCPU did not get; by QEMU's names, as `granted` has them.

    `host` has the kernel's (/proc/cpuinfo). What QEMU has no name for is not compared: much of it is the
    kernel's own word.
    """
    known = {name for word in _WORDS.values() for name in word.split()} - {"-"}
    has = {_BY_KERNEL.get(flag, flag.replace("_", "-")) for flag in host if flag not in _NOT_COMPARED}
    got = set(granted)
    return frozenset((has & known) - got.union(*(_SAYS_ALSO.get(name, ()) for name in got)))
