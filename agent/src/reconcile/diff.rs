//! [`diff`]: what to do next, from what should be and what is. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use muster_proto::{Bytes, DesiredAssignment, DesiredState, EngineSettings, ModelDigest, Timestamp};

/// What makes a running model the same: its file and its settings. A new assignment with both takes over the worker of
/// an old one without loading again.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RunKey {
    /// The file.
    pub digest: ModelDigest,
    /// How it runs.
    pub settings: EngineSettings,
}

impl RunKey {
    /// What an assignment runs.
    pub fn of(assignment: &DesiredAssignment) -> Self {
        Self { digest: assignment.digest, settings: assignment.settings.clone() }
    }
}

/// What is, as far as deciding needs it.
#[derive(Clone, Debug, PartialEq)]
pub struct Situation {
    /// Whole files and their sizes.
    pub files: BTreeMap<ModelDigest, Bytes>,
    /// Files that are still coming, or came in part once.
    pub parts: BTreeSet<ModelDigest>,
    /// The download that runs.
    pub downloading: Option<ModelDigest>,
    /// Downloads that failed and wait for their time.
    pub held_back: BTreeSet<ModelDigest>,
    /// Models with a supervisor.
    pub runners: BTreeMap<RunKey, RunnerSituation>,
    /// Since when which file is not wanted.
    pub unwanted: BTreeMap<ModelDigest, Timestamp>,
    /// Now.
    pub now: Timestamp,
    /// How long an unwanted file stays.
    pub grace: Duration,
}

/// A supervisor, as far as deciding needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunnerSituation {
    /// Roles that it last served.
    pub roles: BTreeSet<String>,
    /// Whether it is being stopped.
    pub stopping: bool,
}

/// One thing to do. Each may be done again without harm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Get a file.
    Download {
        /// Which.
        digest: ModelDigest,
        /// Its size.
        size: Bytes,
    },
    /// Stop getting a file; what came stays.
    CancelDownload,
    /// Load a model and keep it running.
    Start(RunKey),
    /// Unload a model.
    Stop(RunKey),
    /// A file is no longer wanted: its grace time begins.
    MarkUnwanted(ModelDigest),
    /// A file is wanted again.
    MarkWanted(ModelDigest),
    /// Delete a file.
    Remove(ModelDigest),
}

/// What to do next. Without a desired state nothing is known to be unwanted, so that nothing is done.
pub fn diff(desired: Option<&DesiredState>, is: &Situation) -> Vec<Action> {
    let Some(desired) = desired else { return Vec::new() };
    let present = |assignment: &DesiredAssignment| is.files.get(&assignment.digest) == Some(&assignment.size);
    let mut actions = Vec::new();
    files(desired, is, &mut actions);

    let wanted: BTreeSet<RunKey> = desired.assignments.iter().map(RunKey::of).collect();
    // A model whose successor is not here yet goes on answering.
    let awaited_roles: BTreeSet<&str> =
        desired.assignments.iter().filter(|assignment| !present(assignment)).map(|a| a.role.as_str()).collect();
    let mut leaving = false;
    for (key, runner) in &is.runners {
        let bridges = runner.roles.iter().any(|role| awaited_roles.contains(role.as_str()));
        if runner.stopping {
            leaving = true;
        } else if !wanted.contains(key) && !bridges {
            leaving = true;
            actions.push(Action::Stop(key.clone()));
        }
    }
    // Memory was planned for what is wanted: nothing loads before what leaves is gone.
    if !leaving {
        let mut starting = BTreeSet::new();
        for assignment in desired.assignments.iter().filter(|assignment| present(assignment)) {
            let key = RunKey::of(assignment);
            if !is.runners.contains_key(&key) && starting.insert(key.clone()) {
                actions.push(Action::Start(key));
            }
        }
    }
    actions
}

fn files(desired: &DesiredState, is: &Situation, actions: &mut Vec<Action>) {
    let wanted: BTreeMap<ModelDigest, Bytes> = desired.assignments.iter().map(|a| (a.digest, a.size)).collect();
    if is.downloading.is_some_and(|digest| !wanted.contains_key(&digest)) {
        actions.push(Action::CancelDownload);
    }
    let mut next = None;
    for assignment in &desired.assignments {
        match is.files.get(&assignment.digest) {
            Some(size) if *size == assignment.size => {}
            // Cut off or grown since it was verified.
            Some(_) => actions.push(Action::Remove(assignment.digest)),
            None if is.held_back.contains(&assignment.digest) => {}
            None => next = next.or(Some(Action::Download { digest: assignment.digest, size: assignment.size })),
        }
    }
    if is.downloading.is_none() {
        actions.extend(next);
    }
    let in_use = |digest: &ModelDigest| {
        wanted.contains_key(digest)
            || is.downloading == Some(*digest)
            || is.runners.keys().any(|key| key.digest == *digest)
    };
    let here: BTreeSet<&ModelDigest> = is.files.keys().chain(&is.parts).collect();
    for digest in here {
        match (in_use(digest), is.unwanted.get(digest)) {
            (true, Some(_)) => actions.push(Action::MarkWanted(*digest)),
            (false, None) => actions.push(Action::MarkUnwanted(*digest)),
            (false, Some(since)) if is.now.since(*since) >= is.grace => actions.push(Action::Remove(*digest)),
            _ => {}
        }
    }
}

#[cfg(test)]
#[path = "diff_tests.rs"]
mod tests;
