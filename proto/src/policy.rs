//! [`Policy`]: what the operator wants. Intent only; what it comes to on each machine is the plan's matter.

use serde::{Deserialize, Serialize};

use crate::{Bytes, ContextTokens, EngineSettings, KvType};

/// What every machine should get. Written by people as TOML.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// What machines are for; this version takes one.
    #[serde(rename = "role", default)]
    pub roles: Vec<RolePolicy>,
    /// Memory to leave alone on every device and on the host.
    #[serde(default = "default_reserve", with = "human_bytes")]
    pub reserve: Bytes,
}

/// What one role should get.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RolePolicy {
    /// `chat`, `code` or `embed`.
    pub name: String,
    /// Models of the catalog, the most wanted first.
    pub models: Vec<String>,
    /// Context that each sequence must have.
    #[serde(default = "default_context")]
    pub context: ContextTokens,
    /// Sequences answered at the same time.
    #[serde(default = "default_parallel")]
    pub parallel: u32,
    /// Type of the KV cache.
    #[serde(default = "default_kv_type")]
    pub kv_type: KvType,
    /// Slowest decode speed that is still worth having, in tokens a second.
    #[serde(default)]
    pub min_decode: Option<f64>,
}

impl RolePolicy {
    /// The settings that artifacts of this role are sized and run with.
    pub fn settings(&self) -> EngineSettings {
        EngineSettings {
            context: self.context,
            parallel: self.parallel,
            kv_type: self.kv_type,
            ..EngineSettings::default()
        }
    }
}

/// Why a policy cannot be followed. Each says where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// No role, or more than this version takes.
    #[error("a policy takes exactly one [[role]] in this version, this one has {0}")]
    RoleCount(usize),
    /// Not one of the roles.
    #[error("role {0:?} is not known: write chat, code or embed")]
    UnknownRole(String),
    /// No model.
    #[error("role {0:?} names no model: add models = [\"NAME\"]")]
    NoModels(String),
    /// A number outside its range.
    #[error("role {role:?}: {setting} = {value} is outside {range}")]
    OutOfRange {
        /// The role.
        role: String,
        /// Which setting.
        setting: &'static str,
        /// Its value.
        value: String,
        /// What is allowed.
        range: &'static str,
    },
}

impl Policy {
    /// Checks what TOML cannot.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self) -> Result<(), PolicyError> {
        if self.roles.len() != 1 {
            return Err(PolicyError::RoleCount(self.roles.len()));
        }
        for role in &self.roles {
            if !["chat", "code", "embed"].contains(&role.name.as_str()) {
                return Err(PolicyError::UnknownRole(role.name.clone()));
            }
            if role.models.is_empty() {
                return Err(PolicyError::NoModels(role.name.clone()));
            }
            let out_of_range = |setting, value: String, range| PolicyError::OutOfRange {
                role: role.name.clone(),
                setting,
                value,
                range,
            };
            if !(64..=16_777_216).contains(&role.context.get()) {
                return Err(out_of_range("context", role.context.get().to_string(), "64 to 16777216"));
            }
            if !(1..=64).contains(&role.parallel) {
                return Err(out_of_range("parallel", role.parallel.to_string(), "1 to 64"));
            }
            if let Some(speed) = role.min_decode.filter(|speed| !(speed.is_finite() && *speed >= 0.0)) {
                return Err(out_of_range("min_decode", speed.to_string(), "0 and above"));
            }
        }
        Ok(())
    }
}

/// What a desktop and a browser want to keep: 512 MiB.
const fn default_reserve() -> Bytes {
    Bytes::from_mib(512)
}

const fn default_context() -> ContextTokens {
    ContextTokens::new(4096)
}

const fn default_parallel() -> u32 {
    1
}

const fn default_kv_type() -> KvType {
    KvType::F16
}

/// Bytes as people write them: a number, or a text with a unit.
mod human_bytes {
    use serde::{Deserialize, Deserializer, Serializer, de};

    use crate::Bytes;

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Number(u64),
        Text(String),
    }

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    pub fn serialize<S: Serializer>(bytes: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(bytes.get())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        match Written::deserialize(deserializer)? {
            Written::Number(bytes) => Ok(Bytes::new(bytes)),
            Written::Text(text) => Bytes::parse(&text).map_err(de::Error::custom),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_reads_from_toml_and_keeps_its_defaults() {
        let policy: Policy =
            toml::from_str("reserve = '1GiB'\n[[role]]\nname = 'chat'\nmodels = ['tiny']\ncontext = 1024\n")
                .expect("a valid policy");
        assert_eq!(policy.check(), Ok(()));
        assert_eq!(policy.reserve, Bytes::from_gib(1));
        assert_eq!(policy.roles[0].settings().context, ContextTokens::new(1024));
        assert_eq!(policy.roles[0].settings().ubatch, 512);
    }

    #[test]
    fn a_misspelt_setting_is_an_error() {
        assert!(toml::from_str::<Policy>("[[role]]\nname = 'chat'\nmodels = ['m']\ncontxt = 3\n").is_err());
    }

    #[test]
    fn each_wrong_policy_says_what_is_wrong() {
        let wrong =
            |text: &str| toml::from_str::<Policy>(text).expect("well-formed").check().expect_err("wrong").to_string();
        assert!(wrong("").contains("exactly one"));
        assert!(wrong("[[role]]\nname='cook'\nmodels=['m']").contains("cook"));
        assert!(wrong("[[role]]\nname='chat'\nmodels=[]").contains("names no model"));
        assert!(wrong("[[role]]\nname='chat'\nmodels=['m']\nparallel=0").contains("1 to 64"));
    }
}
