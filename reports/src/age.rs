//! Moments and spans as people say them.

use std::time::Duration;

use muster_proto::Timestamp;

/// How long: `42 s`, `3 min`, `5 h`, `12 d`; below ten seconds with a decimal, below one in milliseconds.
pub fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 => format!("{} ms", duration.subsec_millis()),
        1..10 => format!("{:.1} s", duration.as_secs_f64()),
        10..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// How long ago `then` was, or how far ahead it is: `now`, `3 min ago`, `in 5 h`.
pub fn age(then: Timestamp, now: Timestamp) -> String {
    /// Within this, two clocks and a screen do not tell.
    const NOW: Duration = Duration::from_secs(5);
    let (past, future) = (now.since(then), then.since(now));
    if past < NOW && future < NOW {
        "now".into()
    } else if future > Duration::ZERO {
        format!("in {}", whole(future))
    } else {
        format!("{} ago", whole(past))
    }
}

/// A span without decimals.
fn whole(duration: Duration) -> String {
    match duration.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        _ => span(duration),
    }
}

/// `2025-11-22 13:10:00 UTC`.
pub(crate) fn date(moment: Timestamp) -> String {
    match jiff::Timestamp::from_millisecond(moment.unix_millis()) {
        Ok(time) => time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string(),
        Err(_) => moment.to_string(),
    }
}

/// The moment and how long ago it was.
pub(crate) fn date_and_age(moment: Timestamp, now: Timestamp) -> String {
    format!("{} ({})", date(moment), age(moment, now))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_ages_read_as_people_say_them() {
        let now = Timestamp::from_unix_millis(1_763_817_000_000);
        let at = |seconds: i64| age(Timestamp::from_unix_millis(now.unix_millis() + seconds * 1000), now);
        let said = [0, -4, -42, -119, -200, -7199, -7200, -172_799, -172_800, 3, 90, 86_400].map(at);
        let wanted = [
            "now",
            "now",
            "42 s ago",
            "119 s ago",
            "3 min ago",
            "119 min ago",
            "2 h ago",
            "47 h ago",
            "2 d ago",
            "now",
            "in 90 s",
            "in 24 h",
        ];
        assert_eq!(said, wanted);
        assert_eq!(span(Duration::from_millis(350)), "350 ms");
        assert_eq!(span(Duration::from_millis(2140)), "2.1 s");
        assert_eq!(age(Timestamp::from_unix_millis(i64::MIN), now).rsplit(' ').next(), Some("ago"));
    }
}
