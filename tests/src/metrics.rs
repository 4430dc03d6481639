//! [`Metrics`]: a page of Prometheus' text format 0.0.4, read strictly.

use std::collections::BTreeMap;

use crate::http::{Request, send};

/// A page: every sample by its name with its labels as they were written.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// The page itself.
    pub text: String,
    samples: BTreeMap<String, f64>,
}

impl Metrics {
    /// Scrapes `GET /metrics` at an address.
    #[track_caller]
    pub fn scrape(address: &str) -> Self {
        let reply = send(address, &Request::get("/metrics")).expect("an answer");
        assert_eq!(reply.status, 200);
        let kind = reply.header("content-type").expect("a type").to_owned();
        assert!(kind.starts_with("text/plain; version=0.0.4"), "{kind}");
        Self::parse(String::from_utf8(reply.bytes().expect("a body")).expect("UTF-8"))
    }

    /// Reads a page. Fails where Prometheus would.
    #[track_caller]
    pub fn parse(text: String) -> Self {
        assert!(text.ends_with('\n'), "the last line has no end");
        let mut samples = BTreeMap::new();
        let mut types = BTreeMap::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect("a name and a type");
                assert!(matches!(kind, "gauge" | "counter" | "histogram"), "{line}");
                assert!(types.insert(name.to_owned(), kind.to_owned()).is_none(), "{name} has two types");
                continue;
            }
            if line.starts_with("# HELP ") {
                continue;
            }
            let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no sample: {line}"));
            let name = series.split('{').next().expect("a name");
            let plain = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
            assert!(plain && name.starts_with("muster_"), "{line}");
            let family = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
            let family = family.filter(|family| types.get(*family).is_some_and(|kind| kind == "histogram"));
            assert!(types.contains_key(family.unwrap_or(name)), "{name} has no type");
            let value: f64 = value.parse().unwrap_or_else(|_| panic!("no number: {line}"));
            assert!(samples.insert(series.to_owned(), value).is_none(), "{series} is there twice");
        }
        Self { text, samples }
    }

    /// A sample by its name and labels, e.g. `muster_agent_connected`.
    pub fn get(&self, series: &str) -> Option<f64> {
        self.samples.get(series).copied()
    }

    /// A sample that has to be there.
    #[track_caller]
    pub fn value(&self, series: &str) -> f64 {
        self.get(series).unwrap_or_else(|| panic!("no {series} in\n{}", self.text))
    }
}
