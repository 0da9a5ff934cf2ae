//! The limits on messages as the relay keeps them, and as a plain model reads them: no sequence of frames carries more payload
//! or more frames past a limit than its bucket allows, at any split and any declared length.

#[path = "../model/messages.rs"]
mod model;

use std::fs;
use std::path::Path;

use proptest::prelude::*;

/// To keep a new finding, put its bytes into a file there: no code has to change.
#[test]
fn the_corpus_passes_as_the_model_has_it() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/messages");
    let mut replayed = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let file = entry.unwrap().path();
        println!("replaying {}", file.display());
        model::check(&fs::read(file).unwrap());
        replayed += 1;
    }
    assert!(replayed > 0);
}

/// A frame, mostly one that can be, with its payload or with less than it declares.
fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let first = prop::sample::select(vec![
        0x81_u8, 0x81, 0x82, 0x01, 0x02, 0x00, 0x00, 0x80, 0x80, 0x88, 0x89, 0x8a, 0x8a, 0xc1, 0xf1, 0x83, 0x09,
    ]);
    let length = prop_oneof![4 => 0..20_u64, 3 => 120..130_u64, 2 => 1000..9000_u64, 1 => 65_530..65_540_u64, 1 => Just(u64::MAX >> 1)];
    (first, length, any::<bool>(), 0..24_u8).prop_map(|(first, length, is_masked, twist)| {
        let mask = if is_masked { 0x80 } else { 0 };
        let mut frame = vec![first];
        match (length, twist) {
            (0..126, 1..) => frame.push(mask | u8::try_from(length).unwrap()),
            (0..65_536, _) => {
                frame.push(mask | 0x7e);
                frame.extend(u16::try_from(length).unwrap().to_be_bytes());
            }
            _ => {
                frame.push(mask | 0x7f);
                frame.extend(length.to_be_bytes());
            }
        }
        if is_masked {
            frame.extend(*b"mask");
        }
        let here = usize::try_from(length.min(if twist == 2 { 5 } else { 70_000 })).unwrap();
        frame.resize(frame.len() + here, first);
        frame
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn random_and_hostile_frames_pass_as_the_model_has_them(
        (flags, piece) in any::<(u8, u8)>(),
        limits in prop::array::uniform4(prop_oneof![Just(0_u8), 1..40_u8, any::<u8>()]),
        frames in prop::collection::vec(any_frame(), 1..40),
        repeats in 1..30_usize,
    ) {
        // Frames of the one that speaks, and now and then of the other, which may not be.
        let is_client = flags & 1 == 0;
        let of_its_own = |frame: &&Vec<u8>| (frame[1] & 0x80 != 0) == is_client || frame[0] == 0xf1;
        let frames: Vec<Vec<u8>> = frames.iter().filter(of_its_own).cloned().collect();
        let mut data = vec![flags];
        data.extend(limits);
        data.push(piece);
        data.extend(frames.concat().repeat(repeats));
        model::check(&data);
    }
}
