//! [`GpuUse`]: how much of a graphics card others take, by what Linux's drivers count for each program that opened one.
//!
//! Programs that had a card open are looked at each time, new ones too, the rest in turns: thousands of open files are more
//! than a look may cost. As a user of no rights it sees that user's programs alone.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::fdinfo::{self, Client, Worked};

/// A program that had no card open is looked at again after so many looks.
const TURNS: u32 = 5;
/// The kernel's interface to cards.
const NODES: &str = "/dev/dri/";

/// What identifies an engine for a client: card, client, engine.
type Key = (String, u64, String);

/// Watches what others take.
#[derive(Debug)]
pub struct GpuUse {
    /// `/proc`.
    proc: PathBuf,
    /// Programs by number, with their files that are cards.
    programs: BTreeMap<u32, Vec<String>>,
    turn: u32,
    before: Option<(Instant, BTreeMap<Key, Worked>)>,
}

impl GpuUse {
    /// Nothing was seen yet.
    pub fn new(proc: &Path) -> Self {
        Self { proc: proc.to_owned(), programs: BTreeMap::new(), turn: 0, before: None }
    }

    /// The largest share of an engine of any card that programs other than `own` took since the last call, 0 to 1; `None` at
    /// the first call and where nothing says so.
    pub fn since_last(&mut self, own: &[u32]) -> Option<f64> {
        self.find_programs();
        let now = Instant::now();
        let (mut others, mut ours) = (BTreeMap::new(), BTreeSet::new());
        for (pid, files) in &self.programs {
            for client in files.iter().filter_map(|file| self.client(*pid, file)) {
                let client: Client = client;
                if own.contains(pid) {
                    ours.insert((client.card.clone(), client.number));
                }
                others.insert((client.card.clone(), client.number), client);
            }
        }
        // A file that was handed on is ours too.
        others.retain(|key, _| !ours.contains(key));
        let worked = |client: &Client| -> Vec<(Key, Worked)> {
            let key = |engine: &String| (client.card.clone(), client.number, engine.clone());
            client.engines.iter().map(|(engine, worked)| (key(engine), *worked)).collect()
        };
        let seen: BTreeMap<Key, Worked> = others.values().flat_map(worked).collect();
        let before = self.before.replace((now, seen));
        let (since, before) = before?;
        let passed = now.duration_since(since).as_secs_f64() * 1e9;
        let (_, seen) = self.before.as_ref()?;
        let mut engines: BTreeMap<(&str, &str), f64> = BTreeMap::new();
        for (key, worked) in seen {
            let capacity = others.get(&(key.0.clone(), key.1)).and_then(|client| client.capacity.get(&key.2));
            let share = before.get(key).and_then(|before| fdinfo::share(*before, *worked, passed)).unwrap_or(0.0);
            *engines.entry((&key.0, &key.2)).or_default() += share / capacity.map_or(1.0, |count| *count as f64);
        }
        engines.into_values().map(|share| share.clamp(0.0, 1.0)).reduce(f64::max)
    }

    fn client(&self, pid: u32, file: &str) -> Option<Client> {
        let path = self.proc.join(pid.to_string()).join("fdinfo").join(file);
        fdinfo::parse(&std::fs::read_to_string(path).ok()?)
    }

    /// Brings the list of programs up to date.
    fn find_programs(&mut self) {
        self.turn = (self.turn + 1) % TURNS;
        let entries = std::fs::read_dir(&self.proc).into_iter().flatten().flatten();
        let pids: BTreeSet<u32> = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
        self.programs.retain(|pid, _| pids.contains(pid));
        for pid in pids {
            let due = self.programs.get(&pid).is_none_or(|files| !files.is_empty() || pid % TURNS == self.turn);
            if due {
                self.programs.insert(pid, cards_of(&self.proc.join(pid.to_string())));
            }
        }
    }
}

/// The open files of a program that are cards.
fn cards_of(program: &Path) -> Vec<String> {
    let files = std::fs::read_dir(program.join("fd")).into_iter().flatten().flatten();
    let cards = files.filter(|file| {
        std::fs::read_link(file.path()).is_ok_and(|target| target.to_str().is_some_and(|path| path.starts_with(NODES)))
    });
    cards.filter_map(|file| file.file_name().into_string().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Proc(tempfile::TempDir);

    impl Proc {
        /// A program with one file open.
        fn opens(&self, pid: u32, target: &str, info: &str) {
            let program = self.0.path().join(pid.to_string());
            std::fs::create_dir_all(program.join("fd")).expect("made");
            std::fs::create_dir_all(program.join("fdinfo")).expect("made");
            let _ = std::os::unix::fs::symlink(target, program.join("fd/3"));
            std::fs::write(program.join("fdinfo/3"), info).expect("written");
        }

        /// One that renders.
        fn renders(&self, pid: u32, client: u32, ns: u64) {
            let info = format!(
                "drm-driver:\tamdgpu\ndrm-client-id:\t{client}\ndrm-pdev:\t0000:03:00.0\ndrm-engine-gfx:\t{ns} ns\n"
            );
            self.opens(pid, "/dev/dri/renderD128", &info);
        }
    }

    /// More than passes in any test.
    const YEAR: u64 = 31_536_000_000_000_000;

    #[test]
    fn others_count_and_our_own_do_not() {
        let proc = Proc(tempfile::tempdir().expect("a folder"));
        let mut gpus = GpuUse::new(proc.0.path());
        assert_eq!(gpus.since_last(&[]), None);
        assert_eq!(gpus.since_last(&[]), None, "nobody has a card open");
        proc.renders(10, 1, 0);
        proc.renders(20, 2, 0);
        proc.opens(30, "/tmp/file", "drm-driver:\tamdgpu\ndrm-client-id:\t3\ndrm-engine-gfx:\t0 ns\n");
        // Each program is looked at when it is new.
        assert_eq!(gpus.since_last(&[20]), Some(0.0));
        proc.renders(20, 2, YEAR);
        assert_eq!(gpus.since_last(&[20]), Some(0.0), "our own worker");
        // A helper of our own that got the file from it.
        proc.renders(21, 2, 2 * YEAR);
        assert_eq!(gpus.since_last(&[20]), Some(0.0), "a copy of our own");
        proc.renders(10, 1, YEAR);
        assert_eq!(gpus.since_last(&[20]), Some(1.0), "somebody else");
        assert_eq!(gpus.since_last(&[20]), Some(0.0), "who has finished");
        std::fs::remove_dir_all(proc.0.path().join("20")).expect("removed");
        std::fs::remove_dir_all(proc.0.path().join("21")).expect("removed");
        std::fs::remove_dir_all(proc.0.path().join("10")).expect("removed");
        assert_eq!(gpus.since_last(&[20]), None, "all are gone");
    }

    #[test]
    fn a_program_that_opens_a_card_late_is_found_in_turn() {
        let proc = Proc(tempfile::tempdir().expect("a folder"));
        std::fs::create_dir_all(proc.0.path().join("7/fd")).expect("made");
        let mut gpus = GpuUse::new(proc.0.path());
        assert_eq!(gpus.since_last(&[]), None);
        proc.renders(7, 1, 0);
        let found = (0..=TURNS).any(|_| gpus.since_last(&[]).is_some());
        assert!(found, "it was never looked at again");
    }
}
