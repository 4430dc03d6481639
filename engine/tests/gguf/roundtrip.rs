//! What the writer writes, the reader reads.

use std::io::Write as _;

use muster_engine::gguf::{GgufWriter, TensorPlan, TensorType, Value, fuzz_one};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Entry {
    Text(String),
    U32(u32),
    F32(f32),
    Bool(bool),
    Texts(Vec<String>),
    I32s(Vec<i32>),
}

fn entry() -> impl Strategy<Value = Entry> {
    prop_oneof![
        any::<String>().prop_map(Entry::Text),
        any::<u32>().prop_map(Entry::U32),
        any::<f32>().prop_map(Entry::F32),
        any::<bool>().prop_map(Entry::Bool),
        prop::collection::vec(any::<String>(), 0..8).prop_map(Entry::Texts),
        prop::collection::vec(any::<i32>(), 0..40).prop_map(Entry::I32s),
    ]
}

fn tensor() -> impl Strategy<Value = (String, Vec<u64>)> {
    let types = ["F32", "F16", "BF16", "Q4_0", "Q8_0", "Q4_K", "Q6_K", "IQ4_XS", "MXFP4", "I8"];
    (prop::sample::select(types.to_vec()), 1_u64..4, prop::collection::vec(1_u64..5, 0..3)).prop_map(
        |(kind, blocks, rest)| {
            let row = TensorType::from_name(kind).unwrap().block * blocks;
            (kind.to_owned(), std::iter::once(row).chain(rest).collect())
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read(
        entries in prop::collection::vec(entry(), 0..12),
        tensors in prop::collection::vec(tensor(), 1..10),
    ) {
        let mut writer = GgufWriter::new();
        writer.text("general.architecture", "llama");
        for (index, entry) in entries.iter().enumerate() {
            let key = format!("test.key{index}");
            match entry {
                Entry::Text(text) => writer.text(&key, text),
                Entry::U32(number) => writer.u32(&key, *number),
                Entry::F32(number) => writer.f32(&key, *number),
                Entry::Bool(value) => writer.bool(&key, *value),
                Entry::Texts(texts) => writer.texts(&key, texts),
                Entry::I32s(numbers) => writer.i32s(&key, numbers),
            }
        }
        for (index, (kind, dimensions)) in tensors.iter().enumerate() {
            let kind = TensorType::from_name(kind).unwrap();
            writer.tensor(TensorPlan { name: format!("t{index}"), dimensions: dimensions.clone(), kind });
        }
        let mut bytes = Vec::new();
        writer
            .write(&mut bytes, |tensor, out| out.write_all(&vec![7; usize::try_from(tensor.bytes()).unwrap()]))
            .unwrap();
        let header = fuzz_one(&bytes).unwrap();
        prop_assert_eq!(header.data_offset, writer.header().len() as u64);
        for (plan, read) in writer.tensors().iter().zip(&header.tensors) {
            prop_assert_eq!((&plan.name, &plan.dimensions, plan.kind), (&read.name, &read.dimensions, read.kind));
            prop_assert_eq!(plan.bytes(), read.bytes);
        }
        prop_assert_eq!(writer.tensors().len(), header.tensors.len());
        for (index, entry) in entries.iter().enumerate() {
            let key = format!("test.key{index}");
            let found = header.get(&key).unwrap();
            match (entry, found) {
                (Entry::Text(text), Value::Text(found)) => prop_assert_eq!(text, found),
                (Entry::U32(number), Value::Unsigned(found)) => prop_assert_eq!(u64::from(*number), *found),
                (Entry::F32(number), Value::Float(found)) => {
                    prop_assert!(f64::from(*number).to_bits() == found.to_bits() || number.is_nan() && found.is_nan());
                }
                (Entry::Bool(value), Value::Bool(found)) => prop_assert_eq!(value, found),
                (Entry::Texts(texts), Value::Array { element: 8, length }) => {
                    prop_assert_eq!(texts.len() as u64, *length);
                }
                (Entry::I32s(numbers), Value::Array { element: 5, .. }) => {
                    let found = header.get_integers(&key).unwrap();
                    prop_assert!(found.iter().eq(numbers.iter().map(|number| i64::from(*number)).collect::<Vec<_>>().iter()));
                }
                (entry, found) => panic!("{entry:?} was read as {found:?}"),
            }
        }
    }
}
