//! `Enrolment`: before a machine has a certificate.

use muster_proto::wire;
use muster_proto::wire::enrolment_server::Enrolment;
use tonic::{Request, Response, Status, async_trait};

use super::{Services, concealed, enrol_status};
use crate::enrol::{EnrolAttempt, Enrolled, LateRenewal};

/// The service.
#[derive(Clone, Debug)]
pub(super) struct EnrolmentService {
    services: Services,
}

impl EnrolmentService {
    pub const fn new(services: Services) -> Self {
        Self { services }
    }
}

/// What every way to a certificate answers.
pub(super) fn enrol_response(services: &Services, enrolled: &Enrolled) -> wire::EnrolResponse {
    let certificate = enrolled.certificate.as_ref();
    wire::EnrolResponse {
        machine_id: enrolled.machine.as_bytes().to_vec().into(),
        certificate: certificate.map(|issued| issued.der.to_vec().into()).unwrap_or_default(),
        ca_certificate: services.enroller.ca().certificate().to_vec().into(),
        state: enrolled.state.number(),
        expires_at: certificate.map_or(0, |issued| issued.expires.unix_millis()),
        controller_time: services.clock.now().unix_millis(),
    }
}

#[async_trait]
impl Enrolment for EnrolmentService {
    async fn enrol(&self, request: Request<wire::EnrolRequest>) -> Result<Response<wire::EnrolResponse>, Status> {
        let wire::EnrolRequest { protocol, agent_version: _, token_secret, certificate_request, hostname } =
            request.into_inner();
        let attempt =
            EnrolAttempt { protocol, secret: token_secret.to_vec(), request: certificate_request.to_vec(), hostname };
        let enrolled = self.services.enroller.enrol(attempt).await;
        if let Err(error) = &enrolled {
            tracing::warn!(error = %crate::error_chain(error), "an enrolment was refused");
        }
        let enrolled = enrolled.map_err(|error| concealed(enrol_status(&error)))?;
        self.services.replan.request();
        Ok(Response::new(enrol_response(&self.services, &enrolled)))
    }

    async fn renew_challenge(
        &self,
        _request: Request<wire::RenewChallengeRequest>,
    ) -> Result<Response<wire::RenewChallengeResponse>, Status> {
        let nonce = self.services.enroller.challenge().map_err(|error| concealed(enrol_status(&error)))?;
        let controller_time = self.services.clock.now().unix_millis();
        Ok(Response::new(wire::RenewChallengeResponse { nonce: nonce.to_vec().into(), controller_time }))
    }

    async fn renew_expired(
        &self,
        request: Request<wire::RenewExpiredRequest>,
    ) -> Result<Response<wire::EnrolResponse>, Status> {
        let wire::RenewExpiredRequest { protocol, certificate, certificate_request, nonce, signature } =
            request.into_inner();
        let renewal = LateRenewal {
            protocol,
            certificate: certificate.to_vec(),
            request: certificate_request.to_vec(),
            nonce: nonce.to_vec(),
            signature: signature.to_vec(),
        };
        let enrolled = self.services.enroller.renew_late(renewal).await;
        if let Err(error) = &enrolled {
            tracing::warn!(error = %crate::error_chain(error), "a late renewal was refused");
        }
        let enrolled = enrolled.map_err(|error| concealed(enrol_status(&error)))?;
        Ok(Response::new(enrol_response(&self.services, &enrolled)))
    }
}
