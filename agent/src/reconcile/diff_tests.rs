use muster_proto::{AssignmentId, DeviceMemory, MemoryNeed, Prediction};
use proptest::prelude::*;

use super::*;

const SIZE: Bytes = Bytes::from_mib(1);

fn digest(number: u8) -> ModelDigest {
    ModelDigest::new([number; 32])
}

fn assignment(number: u8, role: &str) -> DesiredAssignment {
    let host = DeviceMemory { name: "Host".into(), model: SIZE, context: SIZE, compute: SIZE };
    DesiredAssignment {
        id: AssignmentId::random(),
        role: role.into(),
        model: format!("model-{number}"),
        quantization: "Q8_0".into(),
        digest: digest(number),
        size: SIZE,
        settings: EngineSettings::default(),
        prediction: Prediction { memory: MemoryNeed { devices: vec![], host }, prefill: None, decode: None },
    }
}

fn desired(assignments: Vec<DesiredAssignment>) -> DesiredState {
    DesiredState { generation: 1, assignments }
}

fn situation() -> Situation {
    Situation {
        files: BTreeMap::new(),
        parts: BTreeSet::new(),
        downloading: None,
        held_back: BTreeSet::new(),
        runners: BTreeMap::new(),
        unwanted: BTreeMap::new(),
        now: Timestamp::from_unix_millis(1_000_000),
        grace: Duration::from_mins(1),
    }
}

fn key(number: u8) -> RunKey {
    RunKey { digest: digest(number), settings: EngineSettings::default() }
}

fn runner(role: &str) -> RunnerSituation {
    RunnerSituation { roles: BTreeSet::from([role.to_owned()]), stopping: false }
}

#[test]
fn a_missing_file_is_fetched_and_one_at_a_time() {
    let state = desired(vec![assignment(1, "chat"), assignment(2, "embed")]);
    let mut is = situation();
    assert_eq!(diff(Some(&state), &is), [Action::Download { digest: digest(1), size: SIZE }]);
    is.downloading = Some(digest(1));
    assert_eq!(diff(Some(&state), &is), []);
    is.downloading = None;
    is.held_back.insert(digest(1));
    assert_eq!(diff(Some(&state), &is), [Action::Download { digest: digest(2), size: SIZE }]);
}

#[test]
fn a_file_that_is_here_is_loaded_once() {
    let state = desired(vec![assignment(1, "chat"), assignment(1, "code")]);
    let mut is = situation();
    is.files.insert(digest(1), SIZE);
    assert_eq!(diff(Some(&state), &is), [Action::Start(key(1))]);
    is.runners.insert(key(1), runner("chat"));
    assert_eq!(diff(Some(&state), &is), []);
}

#[test]
fn the_old_model_answers_until_the_new_one_is_here() {
    let state = desired(vec![assignment(2, "chat")]);
    let mut is = situation();
    is.files.insert(digest(1), SIZE);
    is.runners.insert(key(1), runner("chat"));
    assert_eq!(diff(Some(&state), &is), [Action::Download { digest: digest(2), size: SIZE }]);
    is.files.insert(digest(2), SIZE);
    assert_eq!(diff(Some(&state), &is), [Action::Stop(key(1))], "nothing loads before the old one is gone");
    is.runners.get_mut(&key(1)).expect("there").stopping = true;
    assert_eq!(diff(Some(&state), &is), []);
    is.runners.clear();
    assert_eq!(diff(Some(&state), &is), [Action::MarkUnwanted(digest(1)), Action::Start(key(2))]);
}

#[test]
fn an_empty_state_stops_everything() {
    let mut is = situation();
    is.files.insert(digest(1), SIZE);
    is.downloading = Some(digest(2));
    is.parts.insert(digest(2));
    is.runners.insert(key(1), runner("chat"));
    assert_eq!(diff(Some(&desired(vec![])), &is), [Action::CancelDownload, Action::Stop(key(1))]);
}

#[test]
fn without_a_desired_state_nothing_is_touched() {
    let mut is = situation();
    is.files.insert(digest(1), SIZE);
    assert_eq!(diff(None, &is), []);
}

#[test]
fn unwanted_files_leave_after_the_grace_time() {
    let state = desired(vec![]);
    let mut is = situation();
    is.files.insert(digest(1), SIZE);
    is.parts.insert(digest(2));
    assert_eq!(diff(Some(&state), &is), [Action::MarkUnwanted(digest(1)), Action::MarkUnwanted(digest(2))]);
    is.unwanted = BTreeMap::from([(digest(1), is.now), (digest(2), is.now)]);
    is.now = is.now.plus(Duration::from_secs(59));
    assert_eq!(diff(Some(&state), &is), []);
    is.now = is.now.plus(Duration::from_secs(1));
    assert_eq!(diff(Some(&state), &is), [Action::Remove(digest(1)), Action::Remove(digest(2))]);
    let again = desired(vec![assignment(1, "chat")]);
    assert!(diff(Some(&again), &is).contains(&Action::MarkWanted(digest(1))));
}

#[test]
fn a_file_of_another_size_is_fetched_anew() {
    let mut is = situation();
    is.files.insert(digest(1), Bytes::new(5));
    assert_eq!(diff(Some(&desired(vec![assignment(1, "chat")])), &is), [Action::Remove(digest(1))]);
}

/// What doing an action at once and successfully does to the situation.
fn done(is: &mut Situation, action: Action) {
    match action {
        Action::Download { digest, size } => {
            is.files.insert(digest, size);
        }
        Action::CancelDownload => is.downloading = None,
        Action::Start(key) => {
            is.runners.insert(key, RunnerSituation { roles: BTreeSet::new(), stopping: false });
        }
        Action::Stop(key) => {
            is.runners.remove(&key);
        }
        Action::MarkUnwanted(digest) => {
            is.unwanted.insert(digest, is.now);
        }
        Action::MarkWanted(digest) => {
            is.unwanted.remove(&digest);
        }
        Action::Remove(digest) => {
            is.files.remove(&digest);
            is.parts.remove(&digest);
            is.unwanted.remove(&digest);
        }
    }
}

proptest! {
    /// From anywhere, doing what is said arrives at what is desired, and there is nothing to do then.
    #[test]
    fn it_converges(
        wanted in proptest::collection::btree_set(0_u8..6, 0..4),
        here in proptest::collection::btree_map(0_u8..6, any::<bool>(), 0..6),
        parts in proptest::collection::btree_set(0_u8..6, 0..3),
        running in proptest::collection::btree_set(0_u8..6, 0..3),
        downloading in proptest::option::of(0_u8..6),
    ) {
        let state = desired(wanted.iter().map(|number| assignment(*number, "chat")).collect());
        let mut is = situation();
        is.files = here.into_iter().map(|(number, whole)| (digest(number), if whole { SIZE } else { Bytes::ZERO })).collect();
        is.parts = parts.into_iter().map(digest).collect();
        is.runners = running.into_iter().map(|number| (key(number), runner("chat"))).collect();
        is.downloading = downloading.map(digest).filter(|digest| !is.files.contains_key(digest));
        for _ in 0..20 {
            for action in diff(Some(&state), &is) {
                done(&mut is, action);
            }
            is.downloading = None;
        }
        prop_assert_eq!(diff(Some(&state), &is), []);
        let running: BTreeSet<RunKey> = is.runners.keys().cloned().collect();
        prop_assert_eq!(running, wanted.into_iter().map(key).collect());
    }
}
