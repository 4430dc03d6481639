//! How sizes, devices and layers are written on the command line.

use std::str::FromStr;

use muster_proto::Bytes;

/// Longest name of a device.
const LONGEST_NAME: usize = 64;

/// A size with a unit: `24GiB`, `81920MiB`, `24G`. A number alone is refused, because nobody can tell what was meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WrittenSize(pub Bytes);

impl FromStr for WrittenSize {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.chars().last().is_some_and(|last| last.is_ascii_digit() || last == '.') && text != "0" {
            return Err(format!("{text:?} has no unit: write for example {text}GiB or {text}MiB"));
        }
        Bytes::parse(text).map(Self)
    }
}

/// `NAME=SIZE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrittenDevice {
    /// What to call it.
    pub name: String,
    /// Its memory.
    pub size: Bytes,
}

impl FromStr for WrittenDevice {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (name, size) = text
            .split_once('=')
            .ok_or_else(|| format!("{text:?} is no device: write NAME=SIZE, for example gpu0=24GiB"))?;
        if name.is_empty() || name.len() > LONGEST_NAME || name.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(format!(
                "{name:?} is no name of a device: write 1 to {LONGEST_NAME} letters or digits, for example gpu0"
            ));
        }
        let WrittenSize(size) = size.parse()?;
        if size == Bytes::ZERO {
            return Err(format!("{name} has no memory: write for example {name}=24GiB"));
        }
        Ok(Self { name: name.to_owned(), size })
    }
}

/// `--gpu-layers`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WrittenLayers {
    /// llama.cpp decides.
    Auto,
    /// All.
    All,
    /// So many.
    Count(u32),
}

impl FromStr for WrittenLayers {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "all" => Ok(Self::All),
            number => match number.parse::<u32>() {
                Ok(layers) if layers <= 1_000_000 => Ok(Self::Count(layers)),
                _ => Err(format!("{text:?} is no number of layers: write a number, all or auto")),
            },
        }
    }
}

/// `--cpu-moe`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WrittenExperts {
    /// Those of all layers.
    All,
    /// Those of so many.
    Layers(u32),
}

impl FromStr for WrittenExperts {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "all" => Ok(Self::All),
            number => match number.parse::<u32>() {
                Ok(layers) if layers <= 1_000_000 => Ok(Self::Layers(layers)),
                _ => Err(format!("{text:?} is no number of layers; if it is the model, write it before the flags")),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        for (text, gib) in [("24GiB", 24), ("24G", 24), ("24576MiB", 24), ("24gb", 24), (" 24 GiB ", 24)] {
            assert_eq!(text.parse(), Ok(WrittenSize(Bytes::from_gib(gib))), "{text}");
        }
        assert_eq!("0".parse(), Ok(WrittenSize(Bytes::ZERO)));
        for wrong in ["24", "24.5", "", "GiB", "-1GiB", "24 apples", "999999999999TiB"] {
            assert!(wrong.parse::<WrittenSize>().is_err(), "{wrong:?}");
        }
        assert!("24".parse::<WrittenSize>().is_err_and(|error| error.contains("24GiB")));
    }

    #[test]
    fn devices_have_a_name_and_a_size() {
        let device = |name: &str, size| Ok(WrittenDevice { name: name.into(), size });
        assert_eq!("gpu0=24GiB".parse(), device("gpu0", Bytes::from_gib(24)));
        assert_eq!("gpu1=81920MiB".parse(), device("gpu1", Bytes::from_gib(80)));
        for wrong in ["", "gpu0", "=24GiB", "gpu0=", "gpu0=24", "gpu0=0GiB", "a b=24GiB", "gpu0=x=24GiB"] {
            assert!(wrong.parse::<WrittenDevice>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn layers_are_a_number_or_a_word() {
        assert_eq!("auto".parse(), Ok(WrittenLayers::Auto));
        assert_eq!("all".parse(), Ok(WrittenLayers::All));
        assert_eq!("0".parse(), Ok(WrittenLayers::Count(0)));
        assert_eq!("7".parse(), Ok(WrittenExperts::Layers(7)));
        for wrong in ["-1", "", "some", "4294967296"] {
            assert!(wrong.parse::<WrittenLayers>().is_err() && wrong.parse::<WrittenExperts>().is_err(), "{wrong:?}");
        }
    }
}
