//! [`ClockError`]: this machine's clock is wrong, said so with both times.
//!
//! A wrong clock looks like a hundred other things: certificates that are not valid yet, that expired, that nobody
//! renewed. It is told apart here and nowhere else.

use std::time::{Duration, SystemTime};

use muster_proto::Timestamp;
use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError};

/// How far apart two clocks may be before that is the matter: certificates are backdated by as much.
pub const TOLERANCE: Duration = Duration::from_mins(5);

/// This machine's clock and what it disagrees with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClockError {
    /// The controller's certificate is not valid yet by this machine's clock.
    #[error(
        "this machine's clock says {here}, but the controller's certificate is valid only from {from}: set the clock"
    )]
    Behind {
        /// This machine's clock.
        here: Timestamp,
        /// When the certificate begins.
        from: Timestamp,
    },
    /// The controller's certificate has ended by this machine's clock.
    #[error(
        "this machine's clock says {here}, but the controller's certificate was valid only until {until}: set the clock, here or at the controller"
    )]
    Ahead {
        /// This machine's clock.
        here: Timestamp,
        /// When the certificate ended.
        until: Timestamp,
    },
    /// Both clocks are known.
    #[error("this machine's clock says {here}, the controller's says {controller}: set the one that is wrong")]
    Apart {
        /// This machine's clock.
        here: Timestamp,
        /// The controller's.
        controller: Timestamp,
    },
}

impl ClockError {
    /// The error if both clocks are further apart than [`TOLERANCE`].
    pub fn between(here: Timestamp, controller: Timestamp) -> Option<Self> {
        let apart = here.since(controller).max(controller.since(here));
        (apart > TOLERANCE).then_some(Self::Apart { here, controller })
    }

    /// The error if that is why the controller's certificate was not taken.
    pub fn in_handshake(error: &rustls::Error) -> Option<Self> {
        match error {
            rustls::Error::InvalidCertificate(CertificateError::NotValidYetContext { time, not_before }) => {
                Some(Self::Behind { here: moment(*time), from: moment(*not_before) })
            }
            rustls::Error::InvalidCertificate(CertificateError::ExpiredContext { time, not_after }) => {
                Some(Self::Ahead { here: moment(*time), until: moment(*not_after) })
            }
            _ => None,
        }
    }
}

/// Whether the other side said that a certificate is not valid at this time.
pub fn peer_says_expired(error: &rustls::Error) -> bool {
    matches!(error, rustls::Error::AlertReceived(AlertDescription::CertificateExpired))
}

/// Now, by this machine's clock.
pub fn now() -> Timestamp {
    SystemTime::now().into()
}

fn moment(time: UnixTime) -> Timestamp {
    Timestamp::from_unix_millis(i64::try_from(time.as_secs()).unwrap_or(i64::MAX).saturating_mul(1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_differences_are_none_and_large_ones_show_both_times() {
        let here = Timestamp::from_unix_millis(1_763_817_000_000);
        assert_eq!(ClockError::between(here, here.plus(TOLERANCE)), None);
        let error = ClockError::between(here, here.plus(Duration::from_hours(2))).expect("two hours apart");
        let text = error.to_string();
        assert!(text.contains("2025-11-22T13:10:00") && text.contains("2025-11-22T15:10:00"), "{text}");
    }

    #[test]
    fn a_certificate_of_another_time_is_a_matter_of_the_clock() {
        let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let early = CertificateError::NotValidYetContext { time: at(1000), not_before: at(2000) };
        let text = ClockError::in_handshake(&early.into()).expect("a clock error").to_string();
        assert!(text.contains("1970-01-01T00:16:40") && text.contains("1970-01-01T00:33:20"), "{text}");
        assert_eq!(ClockError::in_handshake(&CertificateError::UnknownIssuer.into()), None);
    }
}
