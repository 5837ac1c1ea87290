//! admissionregistration.k8s.io/v1: field numbers, names in JSON and types, after the `generated.proto` of
//! `k8s.io/api/admissionregistration/v1`. How to read a line: [`super::table`].

use super::meta::{Condition, LabelSelector, ObjectMeta};

super::table::messages! {
    AuditAnnotation: 1 "key" one string, 2 "valueExpression" one string;
    ExpressionWarning: 2 "fieldRef" one string, 3 "warning" one string;
    MatchCondition: 1 "name" one string, 2 "expression" one string;
    MatchResources:
        1 "namespaceSelector" one LabelSelector, 2 "objectSelector" one LabelSelector,
        3 "resourceRules" list NamedRuleWithOperations, 4 "excludeResourceRules" list NamedRuleWithOperations,
        7 "matchPolicy" opt string;
    MutatingWebhook:
        1 "name" one string, 2 "clientConfig" one WebhookClientConfig, 3 "rules" list RuleWithOperations,
        4 "failurePolicy" opt string, 5 "namespaceSelector" one LabelSelector, 6 "sideEffects" opt string,
        7 "timeoutSeconds" opt int32, 8 "admissionReviewVersions" list string, 9 "matchPolicy" opt string,
        10 "reinvocationPolicy" opt string, 11 "objectSelector" one LabelSelector,
        12 "matchConditions" list MatchCondition;
    MutatingWebhookConfiguration: 1 "metadata" one ObjectMeta, 2 "webhooks" list MutatingWebhook;
    NamedRuleWithOperations: 1 "resourceNames" list string, 2 "ruleWithOperations" inline RuleWithOperations;
    ParamKind: 1 "apiVersion" one string, 2 "kind" one string;
    ParamRef:
        1 "name" one string, 2 "namespace" one string, 3 "selector" one LabelSelector,
        4 "parameterNotFoundAction" opt string;
    Rule: 1 "apiGroups" list string, 2 "apiVersions" list string, 3 "resources" list string, 4 "scope" opt string;
    RuleWithOperations: 1 "operations" list string, 2 "rule" inline Rule;
    ServiceReference: 1 "namespace" one string, 2 "name" one string, 3 "path" opt string, 4 "port" opt int32;
    TypeChecking: 1 "expressionWarnings" list ExpressionWarning;
    ValidatingAdmissionPolicy:
        1 "metadata" one ObjectMeta, 2 "spec" one ValidatingAdmissionPolicySpec,
        3 "status" one ValidatingAdmissionPolicyStatus;
    ValidatingAdmissionPolicyBinding: 1 "metadata" one ObjectMeta, 2 "spec" one ValidatingAdmissionPolicyBindingSpec;
    ValidatingAdmissionPolicyBindingSpec:
        1 "policyName" one string, 2 "paramRef" one ParamRef, 3 "matchResources" one MatchResources,
        4 "validationActions" list string;
    ValidatingAdmissionPolicySpec:
        1 "paramKind" one ParamKind, 2 "matchConstraints" one MatchResources, 3 "validations" list Validation,
        4 "failurePolicy" opt string, 5 "auditAnnotations" list AuditAnnotation,
        6 "matchConditions" list MatchCondition, 7 "variables" list Variable;
    ValidatingAdmissionPolicyStatus:
        1 "observedGeneration" one int64, 2 "typeChecking" one TypeChecking, 3 "conditions" list Condition;
    ValidatingWebhook:
        1 "name" one string, 2 "clientConfig" one WebhookClientConfig, 3 "rules" list RuleWithOperations,
        4 "failurePolicy" opt string, 5 "namespaceSelector" one LabelSelector, 6 "sideEffects" opt string,
        7 "timeoutSeconds" opt int32, 8 "admissionReviewVersions" list string, 9 "matchPolicy" opt string,
        10 "objectSelector" one LabelSelector, 11 "matchConditions" list MatchCondition;
    ValidatingWebhookConfiguration: 1 "metadata" one ObjectMeta, 2 "webhooks" list ValidatingWebhook;
    Validation:
        1 "expression" one string, 2 "message" one string, 3 "reason" opt string, 4 "messageExpression" one string;
    Variable: 1 "name" one string, 2 "expression" one string;
    WebhookClientConfig: 1 "service" one ServiceReference, 2 "caBundle" one bytes, 3 "url" opt string;
}
