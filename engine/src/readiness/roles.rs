//! The roles that a fleet is judged for.
//!
//! Floors are what people take for usable: ten tokens a second of answer are faster than reading, and a hundred of prompt
//! take twenty seconds for two thousand tokens; completing code wants more of both.

use muster_proto::{ContextTokens, RoleProfile, TokensPerSecond};

use crate::reference::{ModelRole, ReferenceModel};

/// No role has this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no role profile is called {given:?}: there are {}", known.join(", "))]
pub struct UnknownRole {
    /// What was asked.
    pub given: String,
    /// All there are.
    pub known: Vec<String>,
}

/// All role profiles.
pub fn roles() -> Vec<RoleProfile> {
    use ModelRole::{Chat, Code, Embed};

    let profile =
        |name: &str, purpose: ModelRole, millions: (u64, u64), context, prefill, decode: Option<f64>| RoleProfile {
            name: name.to_owned(),
            purpose: purpose.to_string(),
            parameters_least: millions.0 * 1_000_000,
            parameters_most: millions.1 * 1_000_000,
            context: ContextTokens::new(context),
            least_quantization: "Q4_K_M".to_owned(),
            prefill_floor: TokensPerSecond::new(prefill),
            decode_floor: decode.and_then(TokensPerSecond::new),
        };
    vec![
        profile("chat", Chat, (6_500, 10_500), 8192, 100.0, Some(10.0)),
        profile("chat-14b", Chat, (11_500, 16_500), 8192, 100.0, Some(10.0)),
        profile("chat-32b", Chat, (23_000, 36_000), 8192, 100.0, Some(10.0)),
        profile("chat-70b", Chat, (65_000, 85_000), 8192, 100.0, Some(8.0)),
        profile("code", Code, (6_500, 36_000), 16_384, 200.0, Some(15.0)),
        profile("embed", Embed, (10, 1_000), 512, 500.0, None),
    ]
}

/// The profile of that name; an empty name is `chat`.
///
/// # Errors
/// [`UnknownRole`].
pub fn role(name: &str) -> Result<RoleProfile, UnknownRole> {
    let wanted = if name.is_empty() { "chat" } else { name };
    let unknown = || UnknownRole { given: name.to_owned(), known: roles().into_iter().map(|role| role.name).collect() };
    roles().into_iter().find(|role| role.name.eq_ignore_ascii_case(wanted)).ok_or_else(unknown)
}

/// Whether a model is for the role's purpose.
pub(super) fn serves(model: &ReferenceModel, role: &RoleProfile) -> bool {
    model.roles.iter().any(|purpose| purpose.to_string() == role.purpose)
}

/// Whether a model is also of the role's class.
pub(super) fn counts(model: &ReferenceModel, role: &RoleProfile) -> bool {
    serves(model, role) && (role.parameters_least..=role.parameters_most).contains(&model.parameters())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference;

    #[test]
    fn every_role_has_models_that_are_trained_for_its_context() {
        for role in roles() {
            let models = reference::all().iter().filter(|model| counts(model, &role));
            let long = models.filter(|model| model.context() >= role.context.get()).count();
            assert!(long >= 3, "{}: {long}", role.name);
        }
    }

    #[test]
    fn a_role_is_found_by_name() {
        assert_eq!(role("").map(|role| role.name), Ok("chat".into()));
        assert_eq!(role("Chat-14B").map(|role| role.name), Ok("chat-14b".into()));
        assert!(role("poet").expect_err("none").to_string().contains("chat-70b"));
    }
}
