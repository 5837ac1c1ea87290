//! Whether a credential counts: one answer for each question, so that a person can see which one failed.

use std::fmt;
use std::ops::Deref;

use jiff::Timestamp;

use super::{CLOCK_SKEW_LEEWAY, Credential, CredentialError, StatusList};
use crate::NodeId;

/// What is asked of a credential.
#[derive(Clone, Copy, Debug)]
pub struct Demands<'a> {
    /// The present.
    pub now: Timestamp,
    /// Who must have issued it; nobody in particular if `None`.
    pub issuer: Option<NodeId>,
    /// Whom it must be about: the key that the peer has proven.
    pub subject: Option<NodeId>,
    /// The list that says whether it was revoked.
    pub status: Option<&'a StatusList>,
}

/// One question. That the form is right and the signature holds was asked by [`Credential::parse`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CheckStep {
    /// Is it of the issuer that was asked for?
    Issuer,
    /// Is it about the node that was asked for?
    Subject,
    /// Is it in its time?
    Validity,
    /// Was it not revoked?
    Status,
}

/// The questions, in order.
pub const CHECK_STEPS: [CheckStep; 4] = [CheckStep::Issuer, CheckStep::Subject, CheckStep::Validity, CheckStep::Status];

/// The answer to one question.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// Which question.
    pub step: CheckStep,
    /// What was found, in words; or what is wrong.
    pub result: Result<String, CredentialError>,
}

/// A credential that counted when it was looked at, and says until when it does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VerifiedCredential {
    credential: Credential,
    /// Not revoked, as far as can be known until then.
    status_until: Option<Timestamp>,
}

impl fmt::Display for CheckStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Issuer => "issuer",
            Self::Subject => "subject",
            Self::Validity => "validity",
            Self::Status => "status",
        })
    }
}

impl Credential {
    /// Returns the answer to every question.
    pub fn check(&self, demands: &Demands<'_>) -> Vec<Finding> {
        let answer = |step| match step {
            CheckStep::Issuer => self.check_issuer(demands.issuer),
            CheckStep::Subject => self.check_subject(demands.subject),
            CheckStep::Validity => in_time(self.valid_from, self.valid_until, demands.now)
                .map(|()| format!("from {} until {}", self.valid_from, self.valid_until)),
            CheckStep::Status => self.check_status(demands.status, demands.now),
        };
        CHECK_STEPS.into_iter().map(|step| Finding { step, result: answer(step) }).collect()
    }

    /// Returns the credential as one that counts.
    ///
    /// # Errors
    /// The first question that was answered with no.
    pub fn verify(self, demands: &Demands<'_>) -> Result<VerifiedCredential, CredentialError> {
        self.check(demands).into_iter().try_for_each(|finding| finding.result.map(drop))?;
        let status_until = self.status.as_ref().and(demands.status).map(StatusList::valid_until);
        Ok(VerifiedCredential { credential: self, status_until })
    }

    fn check_issuer(&self, needed: Option<NodeId>) -> Result<String, CredentialError> {
        match needed {
            Some(needed) if needed != self.issuer => {
                Err(CredentialError::OtherIssuer { observed: self.issuer, needed })
            }
            _ => Ok(self.issuer.to_string()),
        }
    }

    fn check_subject(&self, needed: Option<NodeId>) -> Result<String, CredentialError> {
        match needed {
            Some(needed) if needed != self.subject => {
                Err(CredentialError::OtherSubject { observed: self.subject, needed })
            }
            _ => Ok(self.subject.to_string()),
        }
    }

    fn check_status(&self, list: Option<&StatusList>, now: Timestamp) -> Result<String, CredentialError> {
        let unknown = |reason: String| CredentialError::StatusUnknown { reason };
        let Some(entry) = &self.status else { return Ok("its issuer cannot revoke it before its end".into()) };
        let list = list.ok_or_else(|| unknown(format!("its status list {} is needed", entry.list)))?;
        if list.issuer() != self.issuer || list.id() != entry.list {
            let needed = format!("{} of {}", entry.list, self.issuer);
            return Err(unknown(format!("the list is {} of {}, needed {needed}", list.id(), list.issuer())));
        }
        in_time(list.valid_from(), list.valid_until(), now)
            .map_err(|error| unknown(format!("the list is not of now: {error}")))?;
        match list.is_set(entry.index) {
            None => Err(unknown(format!("the list has no bit {}", entry.index))),
            Some(true) => Err(CredentialError::Revoked { index: entry.index, list: entry.list.clone() }),
            Some(false) => Ok(format!("not revoked in the list of {}", list.valid_from())),
        }
    }
}

impl VerifiedCredential {
    /// Returns the end of what is known: of the credential, or of the list that says that it was not revoked.
    pub fn counts_until(&self) -> Timestamp {
        self.status_until.map_or(self.credential.valid_until, |until| until.min(self.credential.valid_until))
    }

    /// Says whether it counts now. It was verified once; time goes on.
    ///
    /// # Errors
    /// [`CredentialError::NotYet`] or [`CredentialError::Expired`].
    pub fn counts_at(&self, now: Timestamp) -> Result<(), CredentialError> {
        in_time(self.credential.valid_from, self.counts_until(), now)
    }
}

impl Deref for VerifiedCredential {
    type Target = Credential;

    fn deref(&self) -> &Credential {
        &self.credential
    }
}

/// Says whether `now` is in a time, with room for clocks that differ.
pub(crate) fn in_time(from: Timestamp, until: Timestamp, now: Timestamp) -> Result<(), CredentialError> {
    // A sum that does not fit is beyond every time.
    if now.checked_add(CLOCK_SKEW_LEEWAY).is_ok_and(|latest| latest < from) {
        return Err(CredentialError::NotYet { from, now });
    }
    if now.checked_sub(CLOCK_SKEW_LEEWAY).is_ok_and(|earliest| earliest >= until) {
        return Err(CredentialError::Expired { until, now });
    }
    Ok(())
}
