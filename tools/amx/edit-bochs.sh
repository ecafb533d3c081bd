#!/bin/sh
# Changes Bochs 3.0 in the current folder; README.md says how. Made by `diff -e`: only lines of our own.
set -eu

ed -s cpu/avx/amx.cc <<'EDIT'
211a
  // tile data under extended feature disable: the operating system is asked first
  if (BX_CPU_THIS_PTR msr.ia32_xfd & BX_XCR0_XTILEDATA_MASK) {
    BX_CPU_THIS_PTR msr.ia32_xfd_error = BX_XCR0_XTILEDATA_MASK;
    exception(BX_NM_EXCEPTION, 0);
  }

.
191a
  // tile data under extended feature disable: the operating system is asked first
  if (BX_CPU_THIS_PTR msr.ia32_xfd & BX_XCR0_XTILEDATA_MASK) {
    BX_CPU_THIS_PTR msr.ia32_xfd_error = BX_XCR0_XTILEDATA_MASK;
    exception(BX_NM_EXCEPTION, 0);
  }

.
w
q
EDIT

ed -s cpu/avx/avx512_bf16.cc <<'EDIT'
70c
    dst.vmm16u(n) = convert_ne_fp32_to_bfloat16(op1.vmm32u(n - DWORD_ELEMENTS(len)));
.
w
q
EDIT

ed -s cpu/cpu.h <<'EDIT'
672a
  Bit32u ia32_xfd, ia32_xfd_error;
.
w
q
EDIT

ed -s cpu/cpuid.cc <<'EDIT'
262a
      if (subfunction == xcr0_t::BX_XCR0_XTILEDATA_BIT)
        leaf->ecx |= (1<<2);
.
239a
    if (cpu->xcr0_suppmask & BX_XCR0_XTILEDATA_MASK)
      leaf->eax |= (1<<4);

.
w
q
EDIT

ed -s cpu/icache.h <<'EDIT'
143c
    return ((pAddr) & (BxICacheEntries-1)) ^ (fetchModeMask & 127);
.
w
q
EDIT

ed -s cpu/init.cc <<'EDIT'
1057a
  BX_CPU_THIS_PTR msr.ia32_xfd = 0;
  BX_CPU_THIS_PTR msr.ia32_xfd_error = 0;
.
w
q
EDIT

ed -s cpu/msr.cc <<'EDIT'
971a
    case BX_MSR_IA32_XFD:
    case BX_MSR_IA32_XFD_ERROR:
      if (val_64 & ~Bit64u(BX_CPU_THIS_PTR xcr0_suppmask & BX_XCR0_XTILEDATA_MASK)) {
        BX_ERROR(("WRMSR: attempt to set reserved/not supported bit in IA32_XFD"));
        return false;
      }
      if (index == BX_MSR_IA32_XFD)
        BX_CPU_THIS_PTR msr.ia32_xfd = (Bit32u) val_64;
      else
        BX_CPU_THIS_PTR msr.ia32_xfd_error = (Bit32u) val_64;
      break;
.
344a
    case BX_MSR_IA32_XFD:
      val64 = BX_CPU_THIS_PTR msr.ia32_xfd;
      break;
    case BX_MSR_IA32_XFD_ERROR:
      val64 = BX_CPU_THIS_PTR msr.ia32_xfd_error;
      break;
.
112a
  msr_desc[BX_MSR_IA32_XFD] = new MSR_Descriptor("MSR_IA32_XFD", BX_ISA_AMX);
  msr_desc[BX_MSR_IA32_XFD_ERROR] = new MSR_Descriptor("MSR_IA32_XFD_ERR", BX_ISA_AMX);
.
w
q
EDIT

ed -s cpu/xsave.cc <<'EDIT'
1236c
  // a component under extended feature disable is saved as if initial
  return xinuse & ~BX_CPU_THIS_PTR msr.ia32_xfd;
.
1203c
  return BX_CPU_THIS_PTR amx->tile_use_tracker != 0;
.
1186c
    for (unsigned row=0; row < BX_TILE_MAX_ROWS; row++) {
.
1175c
    for (unsigned row=0; row < BX_TILE_MAX_ROWS; row++) {
.
1142,1143c
      tilecfg.vmm16u(8+n)    = BX_CPU_THIS_PTR amx->tilecfg[n].bytes_per_row;
      tilecfg.vmmubyte(48+n) = BX_CPU_THIS_PTR amx->tilecfg[n].rows;
.
410a

      // what the image holds takes its room, whether or not it is restored
      if (format & feature_mask)
        offset += xsave_restore[feature].len;
.
407,409d
350a
  Bit32u disabled = requested_feature_bitmap & restore_mask & BX_CPU_THIS_PTR msr.ia32_xfd;
  if (disabled) {
    BX_CPU_THIS_PTR msr.ia32_xfd_error = disabled;
    exception(BX_NM_EXCEPTION, 0);
  }

.
w
q
EDIT
