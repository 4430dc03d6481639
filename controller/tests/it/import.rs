//! Importing models, with real workers.

use std::fs;

use muster_engine::bundled::MUSTER_TINY_F16;
use muster_proto::wire::{self, import_model_progress, import_model_request};
use tonic::{Code, Status};

use crate::harness::{Running, hello};
use crate::plan::inventory;

/// Everything an import said, and what came of it.
async fn import(
    controller: &Running,
    start: wire::ImportModelStart,
    content: &[u8],
) -> (Vec<String>, Result<wire::Model, Status>) {
    let mut messages = vec![wire::ImportModelRequest { message: Some(import_model_request::Message::Start(start)) }];
    messages.extend(content.chunks(1 << 20).map(|chunk| wire::ImportModelRequest {
        message: Some(import_model_request::Message::Chunk(chunk.to_vec().into())),
    }));
    let mut said = Vec::new();
    let answers = controller.local().await.import_model(tokio_stream::iter(messages)).await;
    let mut answers = match answers {
        Ok(answers) => answers.into_inner(),
        Err(status) => return (said, Err(status)),
    };
    loop {
        match answers.message().await {
            Ok(Some(answer)) => match answer.message.expect("something") {
                import_model_progress::Message::Received(bytes) => said.push(format!("received {bytes}")),
                import_model_progress::Message::Step(step) => said.push(format!("{} {}", step.what, step.subject)),
                import_model_progress::Message::Done(model) => return (said, Ok(model)),
            },
            Ok(None) => panic!("it ended without an answer"),
            Err(status) => return (said, Err(status)),
        }
    }
}

fn start(content: &[u8], name: &str) -> wire::ImportModelStart {
    wire::ImportModelStart { size: content.len() as u64, name: name.to_owned(), ..wire::ImportModelStart::default() }
}

fn blobs(controller: &Running) -> usize {
    let count = |path: std::path::PathBuf| fs::read_dir(path).expect("listed").count();
    let root = controller.data.path().join("blobs");
    assert_eq!(count(root.join("staging")), 0, "something was left behind in staging");
    count(root.join("sha256"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_comes_in_once_with_its_quantizations() {
    let controller = Running::start().await;
    let quantize = vec!["q8_0".to_owned(), "Q4_K_M".to_owned()];
    let bundled = wire::ImportModelStart { bundled: true, quantize, ..wire::ImportModelStart::default() };
    let (said, model) = import(&controller, bundled.clone(), &[]).await;
    let model = model.expect("imported");
    assert_eq!(model.name, "muster-tiny");
    let names: Vec<_> = model.artifacts.iter().map(|artifact| artifact.quantization.as_str()).collect();
    assert_eq!(names, ["F16", "Q8_0", "Q4_K_M"], "most bits first");
    assert!(said.iter().any(|step| step == "quantizing Q4_K_M"), "{said:?}");
    assert_eq!(blobs(&controller), 3);

    let (said, again) = import(&controller, bundled, &[]).await;
    assert_eq!(again.expect("nothing to do"), model);
    assert!(said.iter().any(|step| step == "already in the catalog muster-tiny"), "{said:?}");
    let (said, by_hand) = import(&controller, start(MUSTER_TINY_F16, ""), MUSTER_TINY_F16).await;
    assert!(by_hand.is_ok(), "{by_hand:?}");
    assert!(said.iter().any(|step| step.starts_with("already in the catalog")), "{said:?}");
    let (_, renamed) = import(&controller, start(MUSTER_TINY_F16, "other"), MUSTER_TINY_F16).await;
    assert_eq!(renamed.expect_err("it has a name").code(), Code::AlreadyExists);
    assert_eq!(blobs(&controller), 3);

    // What became damaged or was lost is whole again after another import.
    let file = |artifact: &wire::Artifact| {
        let hex = muster_proto::ModelDigest::try_from(artifact.digest.as_ref()).expect("32 bytes").hex();
        controller.data.path().join("blobs/sha256").join(&hex[..2]).join(hex)
    };
    fs::write(file(&model.artifacts[0]), b"rotten").expect("written");
    fs::remove_file(file(&model.artifacts[2])).expect("removed");
    let quantize = vec!["Q4_K_M".to_owned()];
    let healing = wire::ImportModelStart { bundled: true, quantize, ..wire::ImportModelStart::default() };
    assert_eq!(import(&controller, healing, &[]).await.1.expect("healed"), model);
    assert!(fs::read(file(&model.artifacts[0])).expect("there") == MUSTER_TINY_F16);
    assert!(file(&model.artifacts[2]).exists());
    controller.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_no_model_leaves_nothing() {
    let controller = Running::start().await;
    let cut = &MUSTER_TINY_F16[..1 << 20];
    // A header that safe Rust takes and llama.cpp may not.
    let mut swapped = MUSTER_TINY_F16.to_vec();
    let at = swapped.windows(5).position(|window| window == b"llama").expect("its architecture");
    swapped[at..at + 5].copy_from_slice(b"lamal");
    for (what, content) in
        [("no GGUF", &b"hello"[..]), ("cut off", cut), ("a strange architecture", &swapped), ("empty", b"")]
    {
        let (_, refused) = import(&controller, start(content, "bad"), content).await;
        let refused = refused.expect_err(what);
        assert_eq!(refused.code(), Code::InvalidArgument, "{what}: {refused:?}");
        assert!(refused.metadata().contains_key("muster-bad-model"), "{what}: {refused:?}");
        assert!(!refused.message().contains('\n'), "{what}: {refused:?}");
    }
    assert_eq!(blobs(&controller), 0);
    assert!(controller.store.models().await.expect("listed").is_empty());

    let (_, short) = import(&controller, wire::ImportModelStart { size: 1 << 20, ..start(b"", "m") }, b"hello").await;
    assert_eq!(short.expect_err("too short").code(), Code::Aborted);
    let (_, long) = import(&controller, wire::ImportModelStart { size: 2, ..start(b"", "m") }, b"hello").await;
    assert_eq!(long.expect_err("too long").code(), Code::Aborted);
    let (_, full) = import(&controller, wire::ImportModelStart { size: 1 << 60, ..start(b"", "m") }, b"hello").await;
    let full = full.expect_err("too large");
    assert_eq!(full.code(), Code::ResourceExhausted);
    assert!(full.message().contains("is free"), "{full:?}");
    for (name, quantize) in [("../etc", "Q8_0"), ("m", "Q99")] {
        let wrong = wire::ImportModelStart { quantize: vec![quantize.to_owned()], ..start(MUSTER_TINY_F16, name) };
        let (_, refused) = import(&controller, wrong, MUSTER_TINY_F16).await;
        assert_eq!(refused.expect_err("a wrong word").code(), Code::InvalidArgument);
    }
    assert_eq!(blobs(&controller), 0);
    controller.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_reaches_a_connected_machine_and_says_why() {
    let controller = Running::start().await;
    let desk = controller.desk().await;
    let mut stream = desk.link(&controller, hello(0)).await.expect("let in");
    stream.next().await.expect("welcome");
    let inventory = wire::Inventory::from(inventory(4000, &[], 9000));
    stream.send(wire::from_agent::Message::Inventory(inventory)).await;
    let quantize = vec!["Q4_K_M".to_owned()];
    let bundled = wire::ImportModelStart { bundled: true, quantize, ..wire::ImportModelStart::default() };
    import(&controller, bundled, &[]).await.1.expect("imported");
    let mut local = controller.local().await;
    let apply = |context: u32| wire::ApplyPolicyRequest {
        toml: format!("[[role]]\nname = 'chat'\nmodels = ['muster-tiny']\ncontext = {context}\n"),
    };
    assert_eq!(local.apply_policy(apply(512)).await.expect("applied").into_inner().revision, 1);
    // Nothing but the stream says so: the decision woke it.
    let first = stream.desired().await;
    assert_eq!((first.generation, first.assignments.len()), (1, 1));
    assert_eq!(first.assignments[0].quantization, "F16", "most bits first, and it fits");
    let plan = local.get_plan(wire::GetPlanRequest {}).await.expect("a plan").into_inner();
    assert_eq!(plan.machines[0].hostname, "desk-1");
    let reasons: Vec<_> =
        plan.machines[0].candidates.iter().map(|c| c.rejected.as_ref().map(|r| &r.text[..])).collect();
    assert_eq!(reasons[0], None);
    let why = reasons[1].expect("a reason");
    assert!(why.starts_with("would run, but F16 is closer to the source: KLD 0.0000 against 0.0"), "{why}");

    // The same policy again changes nothing; another one reaches the machine as the next generation.
    assert_eq!(local.apply_policy(apply(512)).await.expect("applied").into_inner().revision, 1);
    assert_eq!(local.apply_policy(apply(1024)).await.expect("applied").into_inner().revision, 2);
    let second = stream.desired().await;
    assert_eq!(second.generation, 2);
    assert_ne!(second.assignments[0].id, first.assignments[0].id, "other settings are another assignment");

    let wrong = wire::ApplyPolicyRequest { toml: "[[role]]\nname = 'cook'\nmodels = ['m']\n".to_owned() };
    assert_eq!(local.apply_policy(wrong).await.expect_err("no such role").code(), Code::InvalidArgument);
    controller.stop().await;
}
