//! authentication.k8s.io/v1: field numbers, names in JSON and types, after the `generated.proto` of
//! `k8s.io/api/authentication/v1`. How to read a line: [`super::table`].

use super::meta::ObjectMeta;

super::table::messages! {
    BoundObjectReference: 1 "kind" one string, 2 "apiVersion" one string, 3 "name" one string, 4 "uid" one string;
    SelfSubjectReview: 1 "metadata" one ObjectMeta, 2 "status" one SelfSubjectReviewStatus;
    SelfSubjectReviewStatus: 1 "userInfo" one UserInfo;
    TokenRequest: 1 "metadata" one ObjectMeta, 2 "spec" one TokenRequestSpec, 3 "status" one TokenRequestStatus;
    TokenRequestSpec:
        1 "audiences" list string, 3 "boundObjectRef" opt BoundObjectReference, 4 "expirationSeconds" opt int64;
    TokenRequestStatus: 1 "token" one string, 2 "expirationTimestamp" one time;
    TokenReview: 1 "metadata" one ObjectMeta, 2 "spec" one TokenReviewSpec, 3 "status" one TokenReviewStatus;
    TokenReviewSpec: 1 "token" one string, 2 "audiences" list string;
    TokenReviewStatus:
        1 "authenticated" one bool, 2 "user" one UserInfo, 3 "error" one string, 4 "audiences" list string;
    UserInfo: 1 "username" one string, 2 "uid" one string, 3 "groups" list string, 4 "extra" map strings;
}
