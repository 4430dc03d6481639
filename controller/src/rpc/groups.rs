//! Names of groups, as operators write them.

use tonic::Status;

use crate::store::GROUPS_MAX;

/// Longest name of a group, in bytes.
const NAME_MAX: usize = 64;

/// Reads names of groups: letters, digits and `. _ - /`, each once.
///
/// # Errors
/// Which name is none, or that there are too many.
pub(super) fn read(names: Vec<String>) -> Result<Vec<String>, Status> {
    if names.len() > GROUPS_MAX {
        return Err(Status::invalid_argument(format!("at most {GROUPS_MAX} groups at once")));
    }
    let mut groups = Vec::new();
    for name in names {
        let letters = name.chars().all(|letter| letter.is_alphanumeric() || "._-/".contains(letter));
        if name.is_empty() || name.len() > NAME_MAX || !letters {
            let form = "1 to 64 letters, digits or . _ - /";
            return Err(Status::invalid_argument(format!("{name:?} is no name of a group: expected {form}")));
        }
        if !groups.contains(&name) {
            groups.push(name);
        }
    }
    Ok(groups)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain_words() {
        let read = |name: &str| read(vec![name.to_owned()]).is_ok();
        assert!(read("Berlin/2.OG") && read("buchhaltung-süd"));
        assert!(!read("") && !read("two words") && !read("=1+1") && !read(&"x".repeat(65)) && !read("a\u{1b}[2J"));
    }
}
