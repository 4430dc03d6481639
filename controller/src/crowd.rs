//! [`Crowd`]: those who are connected and have not said who they are, so that they keep nobody else out.
//!
//! Owns: how many there may be, over all and from one source. It does not know of TLS.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

/// How many there may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CrowdLimits {
    /// Over all sources.
    pub all: usize,
    /// From one source; this host itself may be all of them.
    pub source: usize,
}

#[derive(Debug, Default)]
struct Inside {
    all: usize,
    sources: HashMap<IpAddr, usize>,
}

/// A crowd; clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Crowd {
    limits: CrowdLimits,
    inside: Arc<Mutex<Inside>>,
}

/// A place in it, given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    crowd: Crowd,
    source: IpAddr,
}

/// Whoever has one address of an IPv6 network has all of its last 64 bits.
fn source_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) if !address.is_loopback() => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        address => address,
    }
}

impl Crowd {
    pub fn new(limits: CrowdLimits) -> Self {
        Self { limits, inside: Arc::default() }
    }

    /// A place for somebody from there, if there is one.
    pub fn enter(&self, address: IpAddr) -> Option<Place> {
        let source = source_of(address);
        let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        let from_there = inside.sources.get(&source).copied().unwrap_or_default();
        if inside.all >= self.limits.all || (from_there >= self.limits.source && !source.is_loopback()) {
            return None;
        }
        inside.all += 1;
        inside.sources.insert(source, from_there + 1);
        Some(Place { crowd: self.clone(), source })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut inside = self.crowd.inside.lock().unwrap_or_else(PoisonError::into_inner);
        inside.all -= 1;
        let left = inside.sources.get(&self.source).map_or(0, |count| count - 1);
        if left == 0 {
            inside.sources.remove(&self.source);
        } else {
            inside.sources.insert(self.source, left);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn one_source_takes_its_share_and_leaves_room_for_others() {
        let crowd = Crowd::new(CrowdLimits { all: 4, source: 2 });
        let mut places: Vec<_> =
            ["10.0.0.1", "::ffff:10.0.0.1", "2001:db8::1"].map(|a| crowd.enter(address(a)).expect("room")).into();
        assert!(crowd.enter(address("10.0.0.1")).is_none());
        places.push(crowd.enter(address("2001:db8::2")).expect("room"));
        assert!(crowd.enter(address("10.0.0.2")).is_none(), "full");
        places.swap_remove(0);
        let place = crowd.enter(address("2001:db8::ffff"));
        assert!(place.is_none(), "of the same network as two others");
        places.push(crowd.enter(address("10.0.0.1")).expect("room again"));
        drop(places);
        assert_eq!(crowd.inside.lock().expect("whole").sources.len(), 0);
    }

    #[test]
    fn this_host_may_be_all_of_them() {
        let crowd = Crowd::new(CrowdLimits { all: 3, source: 1 });
        let places = ["127.0.0.1", "127.0.0.1", "::1"].map(|a| crowd.enter(address(a)).expect("room"));
        assert!(crowd.enter(address("127.0.0.1")).is_none());
        drop(places);
    }
}
