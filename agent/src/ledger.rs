//! [`Ledger`]: the desired state on disk, so that the desk goes on with the controller gone.
//!
//! Owns the file and the rule of generations: never an older one, never the same one with other content. It does not know
//! what an assignment means. Entry points: [`Ledger::open`] and [`Ledger::accept`].

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use data_encoding::HEXLOWER;
use muster_engine::host::atomic_file::write_atomic;
use muster_proto::DesiredState;
use muster_proto::wire::{self, ConversionError};
use prost::Message as _;
use ring::digest::{SHA256, digest};

/// First line of the file, with its format.
const MAGIC: &str = "muster ledger 1";

/// The desired state that an agent holds, and its file.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    held: Option<Held>,
}

/// A desired state as it came.
#[derive(Clone, Debug, PartialEq)]
pub struct Held {
    /// What it says.
    pub state: Arc<DesiredState>,
    /// SHA-256 of its encoded message.
    pub digest: [u8; 32],
}

/// Why a ledger file was not taken. The agent goes on without; the controller sends the state again.
#[derive(Debug, thiserror::Error)]
pub enum LedgerDamage {
    /// It cannot be read.
    #[error("cannot read the ledger {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the file system says.
        #[source]
        source: io::Error,
    },
    /// Its checksum is wrong, or it is cut off.
    #[error("the ledger {} is damaged, the controller has to send the desired state again", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
    },
}

/// What became of an offered desired state.
#[derive(Clone, Debug, PartialEq)]
pub enum Accepted {
    /// It is new and on disk.
    New(Arc<DesiredState>),
    /// It is what was held already.
    Same,
}

/// Why an offered desired state was not taken.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// It is older than what is held.
    #[error("generation {offered} is older than {held}, which this machine holds")]
    Older {
        /// The offered generation.
        offered: u64,
        /// The held one.
        held: u64,
    },
    /// It has the held generation and other content.
    #[error("generation {generation} came with other content than this machine holds under that number")]
    OtherContent {
        /// Both generations.
        generation: u64,
    },
    /// It makes no sense.
    #[error("generation {offered} cannot be read")]
    Invalid {
        /// The offered generation.
        offered: u64,
        /// The field that is wrong.
        #[source]
        source: ConversionError,
    },
    /// It cannot be written.
    #[error("cannot write the ledger {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the file system says.
        #[source]
        source: io::Error,
    },
}

impl Ledger {
    /// Reads the file. A damaged one counts as none, is kept beside under `.damaged`, and is told.
    pub fn open(path: &Path) -> (Self, Option<LedgerDamage>) {
        let (held, damage) = match std::fs::read(path) {
            Ok(content) => {
                let held = decode(&content);
                let damage = held.is_none().then(|| LedgerDamage::Corrupt { path: path.to_owned() });
                if damage.is_some() {
                    let _ = std::fs::rename(path, path.with_extension("damaged"));
                }
                (held, damage)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => (None, None),
            Err(source) => (None, Some(LedgerDamage::Read { path: path.to_owned(), source })),
        };
        (Self { path: path.to_owned(), held }, damage)
    }

    /// What the file holds, without touching it; `None` if it is missing or damaged.
    pub fn glance(path: &Path) -> Option<Held> {
        decode(&std::fs::read(path).ok()?)
    }

    /// What is held.
    pub const fn held(&self) -> Option<&Held> {
        self.held.as_ref()
    }

    /// The held generation, 0 for none.
    pub fn generation(&self) -> u64 {
        self.held.as_ref().map_or(0, |held| held.state.generation)
    }

    /// Takes an offered state if the rule of generations allows it, and returns once it would survive a power loss.
    ///
    /// # Errors
    /// Each refusal; what was held stays.
    pub fn accept(&mut self, offered: wire::DesiredState) -> Result<Accepted, LedgerError> {
        let encoded = offered.encode_to_vec();
        let digest = sha256(&encoded);
        let generation = offered.generation;
        if let Some(held) = &self.held {
            let held_generation = held.state.generation;
            if generation < held_generation {
                return Err(LedgerError::Older { offered: generation, held: held_generation });
            }
            if generation == held_generation {
                return if digest == held.digest {
                    Ok(Accepted::Same)
                } else {
                    Err(LedgerError::OtherContent { generation })
                };
            }
        }
        let state =
            DesiredState::try_from(offered).map_err(|source| LedgerError::Invalid { offered: generation, source })?;
        write_atomic(&self.path, &encode(&encoded, &digest))
            .map_err(|source| LedgerError::Write { path: self.path.clone(), source })?;
        let state = Arc::new(state);
        self.held = Some(Held { state: Arc::clone(&state), digest });
        Ok(Accepted::New(state))
    }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    digest(&SHA256, bytes).as_ref().try_into().expect("SHA-256 has 32 bytes")
}

fn encode(message: &[u8], digest: &[u8; 32]) -> Vec<u8> {
    let mut file = format!("{MAGIC}\n{}\n", HEXLOWER.encode(digest)).into_bytes();
    file.extend_from_slice(message);
    file
}

fn decode(file: &[u8]) -> Option<Held> {
    let rest = file.strip_prefix(MAGIC.as_bytes())?.strip_prefix(b"\n")?;
    let (hex, message) = (rest.get(..64)?, rest.get(64..)?.strip_prefix(b"\n")?);
    let digest = sha256(message);
    if HEXLOWER.decode(hex).ok()? != digest {
        return None;
    }
    let state = DesiredState::try_from(wire::DesiredState::decode(message).ok()?).ok()?;
    Some(Held { state: Arc::new(state), digest })
}

#[cfg(test)]
mod tests {
    use muster_proto::{
        AssignmentId, Bytes, DesiredAssignment, DeviceMemory, EngineSettings, MemoryNeed, ModelDigest, Prediction,
    };

    use super::*;

    fn state(generation: u64, model: &str) -> wire::DesiredState {
        let nothing = Bytes::ZERO;
        let host = DeviceMemory { name: "Host".into(), model: nothing, context: nothing, compute: nothing };
        DesiredState {
            generation,
            assignments: vec![DesiredAssignment {
                id: AssignmentId::from_bytes([3; 16]),
                role: "chat".into(),
                model: model.into(),
                quantization: "Q8_0".into(),
                digest: ModelDigest::new([7; 32]),
                size: Bytes::from_mib(1),
                settings: EngineSettings::default(),
                prediction: Prediction { memory: MemoryNeed { devices: vec![], host }, prefill: None, decode: None },
            }],
        }
        .into()
    }

    #[test]
    fn what_was_accepted_is_there_after_a_restart() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("ledger");
        let (mut ledger, damage) = Ledger::open(&path);
        assert!(damage.is_none());
        assert_eq!(ledger.generation(), 0);
        assert!(matches!(ledger.accept(state(4, "tiny")), Ok(Accepted::New(_))));
        let held = ledger.held().cloned();
        let (again, damage) = Ledger::open(&path);
        assert!(damage.is_none());
        assert_eq!(again.held().cloned(), held);
        assert_eq!(again.generation(), 4);
    }

    #[test]
    fn an_older_generation_and_other_content_are_refused() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (mut ledger, _) = Ledger::open(&directory.path().join("ledger"));
        ledger.accept(state(4, "tiny")).expect("the first");
        assert!(matches!(ledger.accept(state(3, "tiny")), Err(LedgerError::Older { offered: 3, held: 4 })));
        assert!(matches!(ledger.accept(state(4, "other")), Err(LedgerError::OtherContent { generation: 4 })));
        assert_eq!(ledger.accept(state(4, "tiny")).expect("the same"), Accepted::Same);
        assert!(matches!(ledger.accept(state(5, "other")), Ok(Accepted::New(_))));
    }

    #[test]
    fn a_state_that_makes_no_sense_leaves_the_old_one() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (mut ledger, _) = Ledger::open(&directory.path().join("ledger"));
        ledger.accept(state(1, "tiny")).expect("the first");
        let mut broken = state(2, "tiny");
        broken.assignments[0].digest = vec![1, 2, 3].into();
        assert!(matches!(ledger.accept(broken), Err(LedgerError::Invalid { offered: 2, .. })));
        assert_eq!(ledger.generation(), 1);
    }

    #[test]
    fn every_torn_or_flipped_file_is_told_and_counts_as_none() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("ledger");
        Ledger::open(&path).0.accept(state(1, "tiny")).expect("written");
        let whole = std::fs::read(&path).expect("there");
        let mut wrong: Vec<Vec<u8>> = (0..whole.len()).map(|length| whole[..length].to_vec()).collect();
        for position in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[position] ^= 1;
            wrong.push(flipped);
        }
        for content in wrong {
            std::fs::write(&path, &content).expect("written");
            let (ledger, damage) = Ledger::open(&path);
            assert_eq!(ledger.generation(), 0);
            assert!(matches!(damage, Some(LedgerDamage::Corrupt { .. })));
        }
    }
}
