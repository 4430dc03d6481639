//! [`GgufFiles`]: a model in one file or several, all of which passed the gate.
//!
//! llama.cpp opens the other files of a model by itself, by name: so they are checked before it gets the first.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};

use muster_proto::Bytes;

use super::cursor::LONGEST_HEADER;
use super::{GgufError, GgufHeader};

/// One file of a model.
#[derive(Clone, Debug)]
pub struct GgufPart {
    /// Where it is.
    pub path: PathBuf,
    /// Its header.
    pub header: GgufHeader,
}

/// The files of one model, in order; never empty.
#[derive(Clone, Debug)]
pub struct GgufFiles {
    first: GgufPart,
    others: Vec<GgufPart>,
}

impl GgufFiles {
    /// Reads and checks the headers of all files of the model whose first file is at `path`. The others of a split model
    /// are those beside it that llama.cpp would open: `NAME-00002-of-00003.gguf` and so on.
    ///
    /// # Errors
    /// The first thing that is wrong: in which file, what and where.
    pub fn open(path: &Path) -> Result<Self, GgufError> {
        let header = GgufHeader::read(path)?;
        let mut files = Self { first: GgufPart { path: path.to_owned(), header }, others: Vec::new() };
        let Some(part) = files.first.header.split() else { return Ok(files) };
        let fail = |path: &Path, detail: String| GgufError::Split { path: path.to_owned(), detail };

        let count = part.count;
        let ending = |number: u16| format!("-{:05}-of-{count:05}.gguf", u32::from(number) + 1);
        let merge = "or merge the parts into one file with llama-gguf-split --merge";
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let prefix = |number: u16| name.strip_suffix(&ending(number)).filter(|prefix| !prefix.is_empty());
        if part.number > 0 {
            let first = prefix(part.number).map(|prefix| format!("{prefix}{}", ending(0)));
            let first = first.unwrap_or_else(|| "its first part".to_owned());
            let detail = format!("this is part {} of {count} of a model; give {first}", u32::from(part.number) + 1);
            return Err(fail(path, detail));
        }
        let Some(prefix) = prefix(0) else {
            let detail = format!(
                "this is part 1 of {count} of a model, and llama.cpp finds the others only if its name ends in {}; \
                 rename the parts {merge}",
                ending(0)
            );
            return Err(fail(path, detail));
        };

        let mut names: HashSet<&str> = HashSet::new();
        let mut headers = 0_u64;
        for number in 1..count {
            let path = path.with_file_name(format!("{prefix}{}", ending(number)));
            let header = match GgufHeader::read(&path) {
                Ok(header) => header,
                Err(GgufError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                    let detail =
                        format!("part {} of {count} is missing; put it beside the first", u32::from(number) + 1);
                    return Err(fail(&path, detail));
                }
                Err(error @ GgufError::Io { .. }) => return Err(error),
                Err(error) => return Err(GgufError::Part { path, error: Box::new(error) }),
            };
            match header.split() {
                Some(found) if found.number == number && found.count == count && found.tensors == part.tensors => {}
                Some(found) => {
                    let detail = format!(
                        "it says that it is part {} of {} with {} tensors in all, and should be part {} of {count} \
                         with {}; the parts do not belong together",
                        u32::from(found.number) + 1,
                        found.count,
                        found.tensors,
                        u32::from(number) + 1,
                        part.tensors
                    );
                    return Err(fail(&path, detail));
                }
                None => {
                    let detail =
                        format!("it is a whole model, and should be part {} of {count}", u32::from(number) + 1);
                    return Err(fail(&path, detail));
                }
            }
            let one = &files.first.header;
            if let Some(other) = header.get_str("general.architecture")
                && other != one.architecture()
            {
                let detail =
                    format!("its architecture is {other:?}, and that of the first part {:?}", one.architecture());
                return Err(fail(&path, detail));
            }
            headers = headers.saturating_add(header.data_offset);
            if headers.saturating_add(one.data_offset) > LONGEST_HEADER {
                return Err(fail(
                    &path,
                    format!("the headers of all parts are together longer than {LONGEST_HEADER} bytes"),
                ));
            }
            files.others.push(GgufPart { path, header });
        }
        for part in files.parts() {
            for tensor in &part.header.tensors {
                if !names.insert(&tensor.name) {
                    return Err(fail(&part.path, format!("tensor {:?} is in an earlier part, too", tensor.name)));
                }
            }
        }
        if names.len() as u64 != part.tensors {
            let found = names.len();
            return Err(fail(path, format!("the parts have {found} tensors, and should have {}", part.tensors)));
        }
        Ok(files)
    }

    /// All files, the first one first.
    pub fn parts(&self) -> impl Iterator<Item = &GgufPart> {
        std::iter::once(&self.first).chain(&self.others)
    }

    /// Length of all files together.
    pub fn file_size(&self) -> Bytes {
        self.parts().map(|part| part.header.file_size).sum()
    }

    /// Bytes of all tensors together, without padding.
    pub fn tensor_bytes(&self) -> Bytes {
        self.parts().map(|part| part.header.tensor_bytes).sum()
    }

    /// The model as one header: the first file's metadata, the tensors and sizes of all. The tensors' offsets stay those in
    /// their own files.
    pub fn into_header(self) -> GgufHeader {
        let (file_size, tensor_bytes) = (self.file_size(), self.tensor_bytes());
        let Self { first: GgufPart { mut header, .. }, others } = self;
        for other in others {
            header.tensors.extend(other.header.tensors);
        }
        header.file_size = file_size;
        header.tensor_bytes = tensor_bytes;
        header
    }
}
