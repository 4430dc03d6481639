//! Who may come in: enrolment tokens and admins.

use comfy_table::Cell;
use muster_proto::{AdminRecord, Timestamp, TokenRecord};

use crate::age::age;
use crate::layout::{Grid, plain, sentence, toned};
use crate::style::{Style, Tone};

/// One line for each token; what it is worth now comes first.
pub fn tokens_table(tokens: &[TokenRecord], now: Timestamp, style: &Style) -> String {
    if tokens.is_empty() {
        return sentence(
            "no token was ever made: `muster token create` makes one for the next desk",
            Tone::Quiet,
            style,
        );
    }
    let mut grid = Grid::new(style, &["ID", "STATE", "USED", "MADE", "EXPIRES", "MACHINES"]).whole(&[0]);
    for token in tokens {
        let TokenRecord { id, created_at, expires_at, uses_allowed, uses, needs_acceptance, revoked, groups } = token;
        let state = if *revoked {
            toned("revoked", Tone::Bad)
        } else if uses >= uses_allowed {
            toned("used up", Tone::Quiet)
        } else if *expires_at <= now {
            toned("expired", Tone::Quiet)
        } else {
            toned("good", Tone::Good)
        };
        grid.row(vec![
            plain(&id.to_string()[..8]),
            state,
            plain(format!("{uses} of {uses_allowed}")),
            plain(age(*created_at, now)),
            plain(age(*expires_at, now)),
            plain(joining(*needs_acceptance, groups)),
        ]);
    }
    grid.render()
}

fn joining(needs_acceptance: bool, groups: &[String]) -> String {
    let how = if needs_acceptance { "wait for acceptance" } else { "accepted at once" };
    if groups.is_empty() { how.to_owned() } else { format!("{how}, join {}", groups.join(", ")) }
}

/// One line for each admin.
pub fn admins_table(admins: &[AdminRecord], now: Timestamp, style: &Style) -> String {
    if admins.is_empty() {
        let hint = "no admin has a certificate: the owner of the controller's socket needs none, `muster admin add NAME` \
                    makes one for elsewhere";
        return sentence(hint, Tone::Quiet, style);
    }
    let mut grid = Grid::new(style, &["NAME", "STATE", "ADDED", "EXPIRES"]);
    for admin in admins {
        let AdminRecord { name, created_at, expires_at, revoked } = admin;
        grid.row(vec![
            plain(name.as_str()),
            admin_state(*revoked, *expires_at <= now),
            plain(age(*created_at, now)),
            plain(age(*expires_at, now)),
        ]);
    }
    grid.render()
}

fn admin_state(revoked: bool, expired: bool) -> Cell {
    match (revoked, expired) {
        (true, _) => toned("revoked", Tone::Bad),
        (false, true) => toned("expired", Tone::Quiet),
        (false, false) => toned("good", Tone::Good),
    }
}
