//! Cuts single definitions out of llama.cpp's sources, so that a phantom decides by the very text of the backend that it
//! stands for. Where upstream renames or moves one, the build fails and names it: a wrong figure cannot come of it.

use std::error::Error;
use std::fs;
use std::path::Path;

/// What to take from one file: each entry is how the line of a definition begins.
pub struct Cut {
    /// Below `llama.cpp`.
    pub file: &'static str,
    /// In the order in which they shall be compiled.
    pub definitions: &'static [&'static str],
}

/// Writes the definitions into one file for `#include`.
pub fn write(llama: &Path, cuts: &[Cut], target: &Path) -> Result<(), Box<dyn Error>> {
    let mut out = String::from("// Cut from llama.cpp's sources by engine/build/upstream.rs.\n");
    for cut in cuts {
        let path = llama.join(cut.file);
        let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        for begins in cut.definitions {
            let found = definition(&text, begins).map_err(|why| format!("{}: {begins}: {why}", cut.file))?;
            out.push_str("\n// ");
            out.push_str(cut.file);
            out.push('\n');
            out.push_str(found);
            out.push('\n');
        }
    }
    fs::write(target, out).map_err(|error| format!("{}: {error}", target.display()))?;
    Ok(())
}

/// From the one line that begins so, to the end of what it defines: a function, a list in braces, or a plain constant.
fn definition<'a>(text: &'a str, begins: &str) -> Result<&'a str, &'static str> {
    let mut starts = text.match_indices(begins).map(|(at, _)| at).filter(|at| *at == 0 || text[..*at].ends_with('\n'));
    let start = starts.next().ok_or("not there")?;
    if starts.next().is_some() {
        return Err("there twice");
    }
    let rest = &text[start..];
    let mut depth = 0_usize;
    let mut chars = rest.char_indices().peekable();
    while let Some((at, character)) = chars.next() {
        match character {
            '/' if rest[at..].starts_with("//") => while chars.next_if(|(_, next)| *next != '\n').is_some() {},
            '"' | '\'' => {
                while let Some((_, next)) = chars.next() {
                    if next == '\\' {
                        chars.next();
                    } else if next == character {
                        break;
                    }
                }
            }
            '{' => depth += 1,
            '}' => {
                depth = depth.checked_sub(1).ok_or("a brace closes that never opened")?;
                if depth == 0 {
                    let semicolon = rest[at + 1..].starts_with(';');
                    return Ok(&rest[..=at + usize::from(semicolon)]);
                }
            }
            ';' if depth == 0 => return Ok(&rest[..=at]),
            _ => {}
        }
    }
    Err("it does not end")
}
