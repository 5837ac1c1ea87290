//! certificates.k8s.io/v1: field numbers, names in JSON and types, after the `generated.proto` of
//! `k8s.io/api/certificates/v1`. How to read a line: [`super::table`].

use super::meta::ObjectMeta;

super::table::messages! {
    CertificateSigningRequest:
        1 "metadata" one ObjectMeta, 2 "spec" one CertificateSigningRequestSpec,
        3 "status" one CertificateSigningRequestStatus;
    CertificateSigningRequestCondition:
        1 "type" one string, 2 "reason" one string, 3 "message" one string, 4 "lastUpdateTime" one time,
        5 "lastTransitionTime" one time, 6 "status" one string;
    CertificateSigningRequestSpec:
        1 "request" one bytes, 2 "username" one string, 3 "uid" one string, 4 "groups" list string,
        5 "usages" list string, 6 "extra" map strings, 7 "signerName" one string, 8 "expirationSeconds" opt int32;
    CertificateSigningRequestStatus:
        1 "conditions" list CertificateSigningRequestCondition, 2 "certificate" one bytes;
}
