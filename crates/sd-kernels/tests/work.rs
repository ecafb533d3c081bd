//! The count of operations, in a process of its own: it belongs to the whole process.
#![allow(clippy::unwrap_used)]

use sd_kernels::{
    AttentionShape, ConvEpilogue, ConvGeometry, Epilogue, ImageShape, Mask, PackedConv2d, PackedLinear,
    Precision, Rows, active, work,
};

#[test]
fn work_is_what_the_shapes_ask_for() {
    let counted = |run: &mut dyn FnMut()| {
        let before = work();
        run();
        work() - before
    };
    let weight = vec![0.1f32; 4096];

    let linear = PackedLinear::new(active(), weight[..8 * 6].into(), 8, 6, None, Precision::F32).unwrap();
    let gated = PackedLinear::gated(active(), weight[..16 * 6].into(), 8, 6, None, Precision::F32).unwrap();
    let (input, mut output) = ([1f32; 5 * 6], [0f32; 5 * 8]);
    let plain = counted(&mut || linear.forward(&input, 5, &mut output, Epilogue::default()).unwrap());
    assert_eq!(plain, 2 * 5 * 6 * 8);
    let both = counted(&mut || gated.forward(&input, 5, &mut output, Epilogue::default()).unwrap());
    assert_eq!(both, 2 * 5 * 6 * 16, "values and gates");

    let conv = |geometry| {
        PackedConv2d::new(active(), weight[..4 * 3 * 9].into(), [4, 3, 3, 3], None, geometry, Precision::F32)
            .unwrap()
    };
    let shape = ImageShape { images: 2, height: 6, width: 4, channels: 3 };
    let input = vec![1f32; shape.len()];
    let geometry = ConvGeometry::padded(1);
    for (geometry, pixels) in [
        (geometry, 6 * 4),
        (ConvGeometry { stride: 2, ..geometry }, 3 * 2),
        (ConvGeometry { upsample: true, ..geometry }, 12 * 8),
    ] {
        let conv = conv(geometry);
        let mut output = vec![0f32; conv.output_shape(shape).unwrap().len()];
        let counted =
            counted(&mut || conv.forward(&input, shape, &mut output, ConvEpilogue::default()).unwrap());
        assert_eq!(counted, 2 * 2 * pixels * 4 * 3 * 9, "{geometry:?}");
    }

    let shape = AttentionShape { batch: 2, heads: 3, queries: 5, keys: 7, head_dim: 4 };
    let (q, k) = ([0.5f32; 2 * 5 * 12], [0.5f32; 2 * 7 * 12]);
    let (q, k) = (Rows::contiguous(&q, 12), Rows::contiguous(&k, 12));
    let mut output = [0f32; 2 * 5 * 12];
    let attention =
        counted(&mut || active().attention(shape, q, k, k, 0.5, Mask::None, &mut output).unwrap());
    assert_eq!(attention, 4 * 2 * 3 * 5 * 7 * 4);
}
