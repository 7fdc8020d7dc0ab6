# SPDX-License-Identifier: LGPL-2.1-or-later
"""QEMU's names for the bits of CPUID (target/i386/cpu.c, feature_word_info), for the words that matter."""

from __future__ import annotations

REGISTERS = frozenset({"EAX", "EBX", "ECX", "EDX"})

# (leaf, subleaf, register) → the names from bit 0 on; `-` is a bit without a name.
_WORDS = {
    (
        1,
        0,
        "EDX",
    ): "fpu vme de pse tsc msr pae mce cx8 apic - sep mtrr pge mca cmov pat pse36 pn clflush - ds "
    "acpi mmx fxsr sse sse2 ss ht tm ia64 pbe",
    (
        1,
        0,
        "ECX",
    ): "pni pclmulqdq dtes64 monitor ds-cpl vmx smx est tm2 ssse3 cid - fma cx16 xtpr pdcm - pcid "
    "dca sse4.1 sse4.2 x2apic movbe popcnt tsc-deadline aes xsave - avx f16c rdrand hypervisor",
    (6, 0, "EAX"): "- - arat",
    (7, 0, "EBX"): "fsgsbase tsc-adjust sgx bmi1 hle avx2 - smep bmi2 erms invpcid rtm - - mpx - avx512f "
    "avx512dq rdseed adx smap avx512ifma pcommit clflushopt clwb intel-pt avx512pf avx512er avx512cd sha-ni "
    "avx512bw avx512vl",
    (
        7,
        0,
        "ECX",
    ): "- avx512vbmi umip pku - waitpkg avx512vbmi2 - gfni vaes vpclmulqdq avx512vnni avx512bitalg "
    "- avx512-vpopcntdq - la57 - - - - - rdpid - bus-lock-detect cldemote - movdiri movdir64b - sgxlc pks",
    (
        7,
        0,
        "EDX",
    ): "- - avx512-4vnniw avx512-4fmaps fsrm - - - avx512-vp2intersect - md-clear - - - serialize - "
    "tsx-ldtrk - - arch-lbr - - amx-bf16 avx512-fp16 amx-tile amx-int8 spec-ctrl stibp flush-l1d "
    "arch-capabilities core-capability ssbd",
    (0x80000001, 0, "EDX"): "- - - - - - - - - - - syscall - - - - - - - - nx - mmxext - - fxsr-opt pdpe1gb "
    "rdtscp - lm 3dnowext 3dnow",
    (
        0x80000001,
        0,
        "ECX",
    ): "lahf-lm cmp-legacy svm extapic cr8legacy abm sse4a misalignsse 3dnowprefetch osvw "
    "ibs xop skinit wdt - lwp fma4 tce - nodeid-msr - tbm topoext perfctr-core perfctr-nb",
    (
        0x80000008,
        0,
        "EBX",
    ): "clzero - xsaveerptr - - - - - - wbnoinvd - - ibpb - ibrs amd-stibp - - - - - - - - "
    "amd-ssbd virt-ssbd amd-no-ssb",
    (0x8000000A, 0, "EDX"): "npt lbrv svm-lock nrip-save tsc-scale vmcb-clean flushbyasid decodeassists - - "
    "pause-filter - pfthreshold avic - v-vmsave-vmload vgif",
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
