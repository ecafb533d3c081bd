//! The AMX instructions: whether they may be used, and the blocks that they multiply.

use std::arch::asm;
use std::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};
use std::sync::OnceLock;

use half::bf16;

use super::emulated::Emulate;
use super::{TILE, TileProduct};
use crate::simd::Vectors;

/// Why AMX cannot be used, if so. Asks the operating system once for the whole process.
pub(crate) fn unavailable() -> Option<&'static str> {
    static REASON: OnceLock<Option<&'static str>> = OnceLock::new();
    *REASON.get_or_init(probe)
}

fn probe() -> Option<&'static str> {
    /// Tiles (bit 24) and their bf16 products (bit 22).
    const FEATURES: u32 = 1 << 24 | 1 << 22;
    /// Tile configuration (bit 17) and tile data (bit 18).
    const STATES: u64 = 1 << 17 | 1 << 18;
    let (basic, features) = (__cpuid(0), __cpuid(1));
    if basic.eax < 7 || __cpuid_count(7, 0).edx & FEATURES != FEATURES {
        return Some("the processor has no AMX tiles with bf16 products (CPUID)");
    }
    const OSXSAVE: u32 = 1 << 27;
    // SAFETY: OSXSAVE says that XGETBV may be executed.
    if features.ecx & OSXSAVE == 0 || unsafe { extended_state() } & STATES != STATES {
        return Some("the operating system does not save AMX state (XCR0)");
    }
    if !permitted() {
        return Some("the operating system refused AMX state to this process (arch_prctl)");
    }
    // SAFETY: the processor has the instructions, and the system lets this process use them.
    (!unsafe { correct() }).then_some("the tiles failed their self-test")
}

#[target_feature(enable = "xsave")]
unsafe fn extended_state() -> u64 {
    // SAFETY: the caller checked OSXSAVE.
    unsafe { _xgetbv(0) }
}

/// Asks Linux to let this process's threads use tile data.
fn permitted() -> bool {
    #[cfg(target_os = "linux")]
    {
        const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
        const XFEATURE_XTILEDATA: libc::c_long = 18;
        // SAFETY: this request touches no memory of ours.
        let result = unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) };
        result == 0
    }
    #[cfg(not(target_os = "linux"))]
    {
        false
    }
}

/// Multiplies every shape of block and compares with plain Rust: small integers, so that sums are exact.
///
/// # Safety
/// The process may execute AMX instructions.
unsafe fn correct() -> bool {
    const STEPS: usize = 3;
    let number = |i: usize| bf16::from_f32((i * 31 % 15) as f32 - 7.0);
    let a: Vec<bf16> = (0..2 * STEPS * TILE).map(number).collect();
    let b: Vec<bf16> = (5..5 + 2 * STEPS * TILE).map(number).collect();
    configure();
    let right = (0..8).all(|shape| {
        let mut found: Vec<f32> = (0..40 * 32).map(|i| (i % 9) as f32).collect();
        let mut expected = found.clone();
        let product = |c: &mut [f32]| TileProduct {
            a: [a.as_ptr(), a[STEPS * TILE..].as_ptr()],
            b: b.as_ptr(),
            steps: STEPS,
            c: c.as_mut_ptr(),
            c_stride: 40,
            two_rows: shape & 1 != 0,
            two_columns: shape & 2 != 0,
            accumulate: shape & 4 != 0,
        };
        multiply(&product(&mut found));
        Vectors::Portable.dispatch(Emulate { product: &product(&mut expected) });
        found == expected
    });
    release();
    right
}

/// The operand of LDTILECFG.
#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// # Safety
/// The process may execute AMX instructions.
pub(super) unsafe fn configure() {
    static ALL: Configuration = {
        let (mut row_bytes, mut rows) = ([0; 16], [0; 16]);
        let mut i = 0;
        while i < 8 {
            row_bytes[i] = 64;
            rows[i] = 16;
            i += 1;
        }
        Configuration { palette: 1, start_row: 0, reserved: [0; 14], row_bytes, rows }
    };
    asm!("ldtilecfg [{}]", in(reg) &ALL, options(nostack, readonly, preserves_flags));
}

/// # Safety
/// The process may execute AMX instructions.
pub(super) unsafe fn release() {
    asm!("tilerelease", options(nostack, nomem, preserves_flags));
}

/// Expands to one block's instructions: sums in tmm0 (first row, first column), tmm1 (first row, second
/// column), tmm2 and tmm3 (second row); A in tmm4 and tmm5, B in tmm6 and tmm7.
macro_rules! block {
    ($product:expr, load: [$($load:literal)*], step: [$($step:literal)*], store: [$($store:literal)*]) => {{
        let product: &TileProduct = $product;
        let second = product.c.wrapping_add(16 * product.c_stride);
        if product.accumulate {
            asm!($($load,)*
                c = in(reg) product.c, d = in(reg) second, s = in(reg) product.c_stride * 4,
                options(nostack, readonly, preserves_flags));
        } else {
            asm!("tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3",
                options(nostack, nomem, preserves_flags));
        }
        if product.steps > 0 {
            asm!("2:", $($step,)*
                "add {a}, 1024", "add {e}, 1024", "add {b}, 2048", "dec {n}", "jnz 2b",
                a = inout(reg) product.a[0] => _, e = inout(reg) product.a[1] => _,
                b = inout(reg) product.b => _, n = inout(reg) product.steps => _, s = in(reg) 64usize,
                options(nostack, readonly));
        }
        asm!($($store,)*
            c = in(reg) product.c, d = in(reg) second, s = in(reg) product.c_stride * 4,
            options(nostack, preserves_flags));
    }};
}

/// # Safety
/// Tiles are configured on this thread and the pointers are valid for the product's shape. Nothing else
/// in this process uses tile registers, so they keep their values from one `asm!` to the next.
#[inline]
pub(super) unsafe fn multiply(product: &TileProduct) {
    match (product.two_rows, product.two_columns) {
        (true, true) => block!(product,
            load: ["tileloadd tmm0, [{c} + {s}*1]" "tileloadd tmm1, [{c} + {s}*1 + 64]"
                   "tileloadd tmm2, [{d} + {s}*1]" "tileloadd tmm3, [{d} + {s}*1 + 64]"],
            step: ["tileloadd tmm6, [{b} + {s}*1]" "tileloadd tmm4, [{a} + {s}*1]"
                   "tdpbf16ps tmm0, tmm4, tmm6"
                   "tileloadd tmm7, [{b} + {s}*1 + 1024]"
                   "tdpbf16ps tmm1, tmm4, tmm7"
                   "tileloadd tmm5, [{e} + {s}*1]"
                   "tdpbf16ps tmm2, tmm5, tmm6" "tdpbf16ps tmm3, tmm5, tmm7"],
            store: ["tilestored [{c} + {s}*1], tmm0" "tilestored [{c} + {s}*1 + 64], tmm1"
                    "tilestored [{d} + {s}*1], tmm2" "tilestored [{d} + {s}*1 + 64], tmm3"]),
        (true, false) => block!(product,
            load: ["tileloadd tmm0, [{c} + {s}*1]" "tileloadd tmm2, [{d} + {s}*1]"],
            step: ["tileloadd tmm6, [{b} + {s}*1]" "tileloadd tmm4, [{a} + {s}*1]"
                   "tdpbf16ps tmm0, tmm4, tmm6"
                   "tileloadd tmm5, [{e} + {s}*1]"
                   "tdpbf16ps tmm2, tmm5, tmm6"],
            store: ["tilestored [{c} + {s}*1], tmm0" "tilestored [{d} + {s}*1], tmm2"]),
        (false, true) => block!(product,
            load: ["tileloadd tmm0, [{c} + {s}*1]" "tileloadd tmm1, [{c} + {s}*1 + 64] /* {d} */"],
            step: ["tileloadd tmm6, [{b} + {s}*1]" "tileloadd tmm4, [{a} + {s}*1]"
                   "tdpbf16ps tmm0, tmm4, tmm6"
                   "tileloadd tmm7, [{b} + {s}*1 + 1024]"
                   "tdpbf16ps tmm1, tmm4, tmm7"],
            store: ["tilestored [{c} + {s}*1], tmm0" "tilestored [{c} + {s}*1 + 64], tmm1 /* {d} */"]),
        (false, false) => block!(product,
            load: ["tileloadd tmm0, [{c} + {s}*1] /* {d} */"],
            step: ["tileloadd tmm6, [{b} + {s}*1]" "tileloadd tmm4, [{a} + {s}*1]"
                   "tdpbf16ps tmm0, tmm4, tmm6"],
            store: ["tilestored [{c} + {s}*1], tmm0 /* {d} */"]),
    }
}
