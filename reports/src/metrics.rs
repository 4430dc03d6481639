//! [`MetricsPage`]: figures as Prometheus' text format 0.0.4.
//!
//! Names end in their unit. Labels are for what is bounded: a model of the catalog, a device, a state; never what a user
//! wrote. What counts over time is kept by its owner in a registry of its own and joins the page at the end.

use prometheus::proto::MetricFamily;
use prometheus::{GaugeVec, Opts, Registry, TextEncoder};

/// The content type of a page.
pub const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A page that is being written: gauges of this moment.
#[derive(Debug, Default)]
pub struct MetricsPage {
    gauges: Registry,
}

impl MetricsPage {
    /// A figure without labels.
    ///
    /// # Panics
    /// As [`Self::each`].
    pub fn one(&self, name: &str, help: &str, value: f64) {
        self.each(name, help, &[], [([], value)]);
    }

    /// The same figure of several things. Without any there is nothing on the page; of two with the same labels the later
    /// one counts.
    ///
    /// # Panics
    /// The name or a label is none that Prometheus takes, or the name was written before.
    pub fn each<const N: usize>(
        &self,
        name: &str,
        help: &str,
        labels: &[&str; N],
        values: impl IntoIterator<Item = ([String; N], f64)>,
    ) {
        let gauge = GaugeVec::new(Opts::new(name, help), labels).expect("names are constants and valid");
        for (words, value) in values {
            gauge.with_label_values(&words).set(value);
        }
        self.gauges.register(Box::new(gauge)).expect("each name is written once");
    }

    /// The page, with what was counted over time.
    pub fn render(&self, counted: &Registry) -> String {
        let mut families: Vec<MetricFamily> = self.gauges.gather();
        families.extend(counted.gather());
        // It writes into a string: nothing can fail but a family without metrics, and such are not gathered.
        TextEncoder::new().encode_to_string(&families).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_types_helps_and_escaped_labels() {
        let page = MetricsPage::default();
        page.one("muster_up", "Whether it runs.", 1.0);
        let words = [(["a\"b\nc".to_owned()], 2.5), (["d".to_owned()], 0.0)];
        page.each("muster_free_bytes", "What is free.", &["device"], words);
        page.each("muster_nothing", "Of which there is none.", &["device"], []);
        let counted = Registry::new();
        let requests = prometheus::IntCounter::new("muster_requests_total", "Requests.").expect("valid");
        requests.inc();
        counted.register(Box::new(requests)).expect("once");
        let text = page.render(&counted);
        assert_eq!(
            text,
            "# HELP muster_free_bytes What is free.\n# TYPE muster_free_bytes gauge\n\
             muster_free_bytes{device=\"a\\\"b\\nc\"} 2.5\nmuster_free_bytes{device=\"d\"} 0\n\
             # HELP muster_up Whether it runs.\n# TYPE muster_up gauge\nmuster_up 1\n\
             # HELP muster_requests_total Requests.\n# TYPE muster_requests_total counter\nmuster_requests_total 1\n"
        );
    }
}
