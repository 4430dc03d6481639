//! [`Machine`] on the wire.

use bytes::Bytes as RawBytes;

use super::error::{
    ConversionError, FLEET_MAX, from_reference, identity, list_up_to, moment, optional, optional_text, text,
};
use crate::{EnrolmentState, Machine, Timestamp, wire};

impl From<Machine> for wire::Machine {
    fn from(value: Machine) -> Self {
        let Machine {
            id,
            hostname,
            enrolment,
            enrolled_at,
            last_seen,
            online,
            agent_version,
            inventory,
            benchmark,
            desired_generation,
            observed,
            bench_order,
        } = value;
        Self {
            id: RawBytes::copy_from_slice(id.as_bytes()),
            hostname,
            enrolment: enrolment.number(),
            enrolled_at: enrolled_at.unix_millis(),
            last_seen: last_seen.map(Timestamp::unix_millis),
            online,
            agent_version,
            inventory: inventory.map(Into::into),
            benchmark: benchmark.map(Into::into),
            desired_generation,
            observed: observed.map(Into::into),
            bench_order: bench_order.map(Into::into),
        }
    }
}

impl TryFrom<wire::Machine> for Machine {
    type Error = ConversionError;
    fn try_from(message: wire::Machine) -> Result<Self, ConversionError> {
        let wire::Machine {
            id,
            hostname,
            enrolment,
            enrolled_at,
            last_seen,
            online,
            agent_version,
            inventory,
            benchmark,
            desired_generation,
            observed,
            bench_order,
        } = message;
        Ok(Self {
            id: identity("id", &id)?,
            hostname: text("hostname", hostname)?,
            enrolment: EnrolmentState::from_number(enrolment),
            enrolled_at: moment("enrolled_at", enrolled_at)?,
            last_seen: last_seen.map(|millis| moment("last_seen", millis)).transpose()?,
            online,
            agent_version: optional_text("agent_version", agent_version)?,
            inventory: optional("inventory", inventory)?,
            benchmark: optional("benchmark", benchmark)?,
            desired_generation,
            observed: optional("observed", observed)?,
            bench_order: optional("bench_order", bench_order)?,
        })
    }
}

from_reference!(Machine);

impl From<Vec<Machine>> for wire::ListMachinesResponse {
    fn from(values: Vec<Machine>) -> Self {
        Self { machines: values.into_iter().map(Into::into).collect() }
    }
}

impl TryFrom<wire::ListMachinesResponse> for Vec<Machine> {
    type Error = ConversionError;
    fn try_from(message: wire::ListMachinesResponse) -> Result<Self, ConversionError> {
        let wire::ListMachinesResponse { machines } = message;
        list_up_to(FLEET_MAX, "machines", machines)
    }
}
