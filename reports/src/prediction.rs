//! What was expected against what was measured.

use muster_proto::{DeviceMemory, Measured, Prediction};

use crate::layout::{Grid, UNKNOWN, known, plain, sentence, toned};
use crate::style::{Style, Tone};

/// How far `measured` is from `predicted`: `+3.1 %`; nothing if the prediction was nothing.
pub fn deviation(predicted: f64, measured: f64) -> Option<String> {
    let percent = (measured - predicted) / predicted * 100.0;
    // Adding zero turns −0 into 0.
    percent.is_finite().then(|| format!("{:+.1} %", (percent * 10.0).round() / 10.0 + 0.0))
}

/// Predicted and measured memory by device, and speeds, with the deviation; one block for each labelled pair.
pub fn prediction_table(pairs: &[(String, &Prediction, &Measured)], style: &Style) -> String {
    if pairs.is_empty() {
        return sentence("nothing has been measured yet: a model has to run first", Tone::Quiet, style);
    }
    let mut grid =
        Grid::new(style, &["MODEL", "WHAT", "PREDICTED", "MEASURED", "DEVIATION"]).right(&[2, 3, 4]).whole(&[2, 3]);
    for (label, prediction, measured) in pairs {
        let mut label = Some(label.as_str());
        let mut row = |what: &str, predicted: Option<(String, f64)>, measured: Option<(String, f64)>| {
            let off = match (&predicted, &measured) {
                (Some((_, predicted)), Some((_, measured))) => deviation(*predicted, *measured),
                _ => None,
            };
            grid.row(vec![
                plain(label.take().unwrap_or_default()),
                plain(what),
                known(predicted.map(|(text, _)| text)),
                known(measured.map(|(text, _)| text)),
                off.map_or_else(|| toned(UNKNOWN, Tone::Quiet), plain),
            ]);
        };
        let memory = |need: &DeviceMemory| (need.total().to_string(), need.total().get() as f64);
        for name in device_names(prediction, measured) {
            let of = |devices: &[DeviceMemory]| devices.iter().find(|device| device.name == name).map(memory);
            row(&format!("memory on {name}"), of(&prediction.memory.devices), of(&measured.memory.devices));
        }
        row("memory on Host", Some(memory(&prediction.memory.host)), Some(memory(&measured.memory.host)));
        let speed = |rate: muster_proto::TokensPerSecond| (rate.to_string(), rate.get());
        row("prefill", prediction.prefill.map(speed), measured.prefill.map(speed));
        row("decode", prediction.decode.map(speed), measured.decode.map(speed));
    }
    grid.render()
}

/// Every device of either side once, the predicted ones first.
fn device_names<'a>(prediction: &'a Prediction, measured: &'a Measured) -> Vec<&'a str> {
    let mut names: Vec<&str> = Vec::new();
    for device in prediction.memory.devices.iter().chain(&measured.memory.devices) {
        if !names.contains(&device.name.as_str()) {
            names.push(&device.name);
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deviations_have_a_sign_and_none_is_made_up() {
        assert_eq!(deviation(100.0, 103.14).as_deref(), Some("+3.1 %"));
        assert_eq!(deviation(100.0, 50.0).as_deref(), Some("-50.0 %"));
        assert_eq!(deviation(100.0, 99.999).as_deref(), Some("+0.0 %"));
        assert_eq!(deviation(0.0, 5.0), None);
        assert_eq!(deviation(0.0, 0.0), None);
    }
}
