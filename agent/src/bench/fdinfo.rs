//! What Linux's drivers of graphics cards say of each program that opened one (`/proc/PID/fdinfo/FD`,
//! Documentation/gpu/drm-usage-stats.rst): amdgpu, i915, xe, nouveau, panfrost, msm and others. Pure.

use std::collections::BTreeMap;

/// Time that an engine of a card worked for a client, since the client opened it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Worked {
    /// In nanoseconds.
    Nanoseconds(u64),
    /// In cycles, of so many that passed (xe).
    Cycles {
        /// Those at work.
        busy: u64,
        /// All.
        all: u64,
    },
}

/// One opening of a card; copies of it in other programs have the same card and number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// PCI address, or the driver's name where the card is on no PCI bus.
    pub card: String,
    /// The driver's number of the client.
    pub number: u64,
    /// By engine, e.g. `gfx`, `compute`, `render`, `rcs`.
    pub engines: BTreeMap<String, Worked>,
    /// How many engines of a name there are, where it is more than one.
    pub capacity: BTreeMap<String, u64>,
}

/// Reads one file; `None` if it is not that of a card, or its driver does not number its clients.
pub fn parse(text: &str) -> Option<Client> {
    let (mut driver, mut bus, mut number) = (None, None, None);
    let (mut engines, mut capacity) = (BTreeMap::new(), BTreeMap::new());
    let (mut cycles, mut all) = (BTreeMap::new(), BTreeMap::new());
    for line in text.lines() {
        let Some((key, value)) = line.split_once(':') else { continue };
        let value = value.trim();
        let count = || value.split_whitespace().next()?.parse::<u64>().ok();
        let Some(key) = key.strip_prefix("drm-") else { continue };
        match key {
            "driver" => driver = Some(value.to_owned()),
            "pdev" => bus = Some(value.to_owned()),
            "client-id" => number = count(),
            _ => {
                let Some(count) = count() else { continue };
                // The longer names first: they begin like the shorter.
                if let Some(engine) = key.strip_prefix("engine-capacity-") {
                    capacity.insert(engine.to_owned(), count.max(1));
                } else if let Some(engine) = key.strip_prefix("engine-") {
                    engines.insert(engine.to_owned(), Worked::Nanoseconds(count));
                } else if let Some(engine) = key.strip_prefix("total-cycles-") {
                    all.insert(engine.to_owned(), count);
                } else if let Some(engine) = key.strip_prefix("cycles-") {
                    cycles.insert(engine.to_owned(), count);
                }
            }
        }
    }
    // Drivers that count both mean the same by them.
    for (engine, busy) in cycles {
        if let Some(all) = all.get(&engine) {
            engines.entry(engine).or_insert(Worked::Cycles { busy, all: *all });
        }
    }
    Some(Client { card: bus.or(driver)?, number: number?, engines, capacity })
}

/// Share of an engine that a client took between two looks, 0 to 1 for each engine of that name together.
pub fn share(before: Worked, now: Worked, passed_ns: f64) -> Option<f64> {
    let share = match (before, now) {
        (Worked::Nanoseconds(before), Worked::Nanoseconds(now)) => now.checked_sub(before)? as f64 / passed_ns,
        (Worked::Cycles { busy: before, all: since }, Worked::Cycles { busy, all }) => {
            busy.checked_sub(before)? as f64 / all.checked_sub(since).filter(|passed| *passed > 0)? as f64
        }
        _ => return None,
    };
    share.is_finite().then_some(share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nanoseconds_of_amdgpu_and_i915_are_read() {
        let amdgpu = "pos:\t0\nflags:\t02100002\nmnt_id:\t27\nino:\t739\ndrm-driver:\tamdgpu\ndrm-client-id:\t26\n\
            drm-pdev:\t0000:03:00.0\npasid:\t32770\ndrm-memory-vram:\t12388 KiB\ndrm-engine-gfx:\t1234567890 ns\n\
            drm-engine-compute:\t5 ns\n";
        let client = parse(amdgpu).expect("a client");
        assert_eq!((client.card.as_str(), client.number), ("0000:03:00.0", 26));
        assert_eq!(client.engines["gfx"], Worked::Nanoseconds(1_234_567_890));
        assert_eq!(client.engines.len(), 2, "memory is no engine");
        let i915 = "drm-driver: i915\ndrm-pdev: 0000:00:02.0\ndrm-client-id: 7\ndrm-engine-render: 25662044495 ns\n\
            drm-engine-video: 0 ns\ndrm-engine-capacity-video: 2\n";
        let client = parse(i915).expect("a client");
        assert_eq!((client.capacity["video"], client.engines.len()), (2, 2));
    }

    #[test]
    fn cycles_of_xe_and_chips_without_a_bus_are_read() {
        let xe = "drm-driver:\txe\ndrm-client-id:\t9\ndrm-pdev:\t0000:03:00.0\ndrm-cycles-rcs:\t28257900\n\
            drm-total-cycles-rcs:\t7655183225\ndrm-cycles-bcs:\t1\n";
        let client = parse(xe).expect("a client");
        assert_eq!(client.engines["rcs"], Worked::Cycles { busy: 28_257_900, all: 7_655_183_225 });
        assert_eq!(client.engines.len(), 1, "of what, is not said");
        let msm = "drm-driver:\tmsm\ndrm-client-id:\t4\ndrm-engine-gpu:\t11 ns\ndrm-cycles-gpu:\t22\n";
        assert_eq!(parse(msm).expect("a client").card, "msm");
        assert_eq!(parse("pos:\t0\nflags:\t02\n"), None);
        assert_eq!(parse("drm-driver:\tnvidia-drm\n"), None, "it counts nothing");
    }

    #[test]
    fn shares_are_of_what_passed() {
        let close = |share: Option<f64>, wanted: f64| (share.expect("a share") - wanted).abs() < 1e-9;
        assert!(close(share(Worked::Nanoseconds(5), Worked::Nanoseconds(5 + 300), 1000.0), 0.3));
        let cycles = |busy, all| Worked::Cycles { busy, all };
        assert!(close(share(cycles(10, 100), cycles(60, 200), 1.0), 0.5));
        assert_eq!(share(cycles(10, 100), cycles(10, 100), 1.0), None, "nothing passed");
        assert_eq!(share(Worked::Nanoseconds(5), Worked::Nanoseconds(4), 1.0), None, "counted anew");
    }
}
