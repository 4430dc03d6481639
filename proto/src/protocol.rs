//! The protocol's version and what peers of other versions may expect.
//!
//! Rules: fields and enum values are only ever added, numbers never reused; an unknown enum value is kept as its number
//! and an unknown oneof arm is skipped; a peer one version older or newer keeps working. What breaks these rules raises
//! [`PROTOCOL_VERSION`], and support for the version before stays for one more.

/// The version of the protocol that this build speaks.
pub const PROTOCOL_VERSION: u32 = 1;

/// Why a peer is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// The peer is more than one version behind.
    #[error("the peer speaks protocol {peer}, this side {ours}: update the peer, one version apart still works")]
    PeerTooOld {
        /// The peer's version.
        peer: u32,
        /// [`PROTOCOL_VERSION`].
        ours: u32,
    },
    /// The peer is more than one version ahead.
    #[error("the peer speaks protocol {peer}, this side {ours}: update this side, one version apart still works")]
    PeerTooNew {
        /// The peer's version.
        peer: u32,
        /// [`PROTOCOL_VERSION`].
        ours: u32,
    },
}

/// Accepts a peer of the same version, one older or one newer.
///
/// # Errors
/// Which side is behind, and the version of each.
pub const fn check_peer_protocol(peer: u32) -> Result<(), ProtocolError> {
    let ours = PROTOCOL_VERSION;
    if peer.saturating_add(1) < ours {
        Err(ProtocolError::PeerTooOld { peer, ours })
    } else if peer > ours + 1 {
        Err(ProtocolError::PeerTooNew { peer, ours })
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_version_apart_works() {
        for peer in [PROTOCOL_VERSION - 1, PROTOCOL_VERSION, PROTOCOL_VERSION + 1] {
            assert_eq!(check_peer_protocol(peer), Ok(()));
        }
        assert!(matches!(check_peer_protocol(PROTOCOL_VERSION + 2), Err(ProtocolError::PeerTooNew { .. })));
    }
}
