//! Models for embeddings: sized and loaded alike, and computed over whole texts.

use muster_engine::gguf::GgufHeader;
use muster_engine::maker::ModelSpec;
use muster_engine::reference;
use muster_engine::worker::{MakeRequest, SizeOptions, SizeRequest, Weights, make_model, size};
use muster_proto::EngineSettings;

use crate::{command, settings, started, within};

#[tokio::test]
async fn an_encoder_computes_more_than_a_token_and_takes_what_was_sized() {
    let folder = tempfile::tempdir().unwrap();
    for id in ["bge-small-en-v1.5", "nomic-embed-text-v1.5"] {
        let path = folder.path().join(format!("{id}.gguf"));
        let spec = ModelSpec::small(reference::find(id).unwrap());
        let quantization = "Q8_0".parse().unwrap();
        let weights = Weights::Random { seed: 1 };
        within(make_model(&command(), MakeRequest { spec, quantization, path: path.clone(), weights })).await.unwrap();
        assert!(GgufHeader::read(&path).unwrap().is_encoder(), "{id}");
        // A larger batch is no use to it, and would end the process.
        let settings = EngineSettings { batch: 2048, ubatch: 256, gpu_layers: Some(0), ..settings(512, 2) };
        let options = SizeOptions::default();
        let request = SizeRequest { path: path.clone(), settings: settings.clone(), devices: vec![], options };
        let sized = within(size(&command(), request)).await.unwrap();
        let (generator, loaded) = started(&path, settings).await;
        assert_eq!(loaded.memory, sized.need, "{id}");
        let (prefill, _) = within(generator.measure(500, 2)).await.unwrap();
        assert!(prefill.get() > 0.0, "{id}");
    }
}
