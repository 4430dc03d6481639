//! When a decision is a new one. Pure.

use muster_proto::DesiredAssignment;

/// Whether two contents of a desired state ask the same of a machine, so that it keeps its generation.
///
/// A prediction that moved a little is no reason to bother a desk; one that is known now and was not, or one of other
/// memory, is.
pub fn same_intent(before: &[DesiredAssignment], after: &[DesiredAssignment]) -> bool {
    before.len() == after.len() && before.iter().zip(after).all(|(before, after)| same_assignment(before, after))
}

fn same_assignment(before: &DesiredAssignment, after: &DesiredAssignment) -> bool {
    let plain = |assignment: &DesiredAssignment| {
        let mut assignment = assignment.clone();
        assignment.prediction.prefill = None;
        assignment.prediction.decode = None;
        assignment
    };
    let learnt = |before: Option<_>, after: Option<_>| before.is_none() && after.is_some();
    let (old, new) = (&before.prediction, &after.prediction);
    plain(before) == plain(after)
        && !learnt(old.prefill.map(drop), new.prefill.map(drop))
        && !learnt(old.decode.map(drop), new.decode.map(drop))
}
