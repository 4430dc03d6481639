//! Which known names are most like one that is not known.

/// The known names most like `wanted`, best first; cases apart.
pub(super) fn nearest<'a>(known: impl Iterator<Item = &'a str>, wanted: &str, most: usize) -> Vec<&'a str> {
    let wanted: String = wanted.to_lowercase().chars().take(100).collect();
    let likeness = |name: &str| {
        let name = name.to_lowercase();
        // A name that has the word in it is meant, however long it is.
        let inside = !wanted.is_empty() && (name.contains(&wanted) || wanted.contains(&name));
        strsim::jaro_winkler(&name, &wanted) + if inside { 1.0 } else { 0.0 }
    };
    let mut names: Vec<(f64, &str)> = known.map(|name| (likeness(name), name)).collect();
    names.sort_by(|(one, _), (other, _)| other.total_cmp(one));
    names.into_iter().take(most).map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn the_nearest_is_what_was_meant() {
        let known = ["llama-3.1-8b", "llama-3.1-70b", "qwen3-8b", "gemma-3-12b"];
        let nearest = |wanted: &str| nearest(known.into_iter(), wanted, 1).first().copied();
        assert_eq!(nearest("llama3.1-8b"), Some("llama-3.1-8b"));
        assert_eq!(nearest("LLAMA-3.1-70B"), Some("llama-3.1-70b"));
        assert_eq!(nearest("gemma3-12b"), Some("gemma-3-12b"));
        assert_eq!(nearest("gemma"), Some("gemma-3-12b"));
        assert_eq!(nearest("qwen-3-8b"), Some("qwen3-8b"));
    }
}
