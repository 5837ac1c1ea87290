//! apiextensions.k8s.io/v1: field numbers, names in JSON and types, after the `generated.proto` of
//! `k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1`. How to read a line: [`super::table`].

use super::meta::ObjectMeta;

super::table::messages! {
    CustomResourceColumnDefinition:
        1 "name" one string, 2 "type" one string, 3 "format" one string, 4 "description" one string,
        5 "priority" one int32, 6 "jsonPath" one string;
    CustomResourceConversion: 1 "strategy" one string, 2 "webhook" one WebhookConversion;
    CustomResourceDefinition:
        1 "metadata" one ObjectMeta, 2 "spec" one CustomResourceDefinitionSpec,
        3 "status" one CustomResourceDefinitionStatus;
    CustomResourceDefinitionCondition:
        1 "type" one string, 2 "status" one string, 3 "lastTransitionTime" one time, 4 "reason" one string,
        5 "message" one string, 6 "observedGeneration" one int64;
    CustomResourceDefinitionNames:
        1 "plural" one string, 2 "singular" one string, 3 "shortNames" list string, 4 "kind" one string,
        5 "listKind" one string, 6 "categories" list string;
    CustomResourceDefinitionSpec:
        1 "group" one string, 3 "names" one CustomResourceDefinitionNames, 4 "scope" one string,
        7 "versions" list CustomResourceDefinitionVersion, 9 "conversion" one CustomResourceConversion,
        10 "preserveUnknownFields" one bool;
    CustomResourceDefinitionStatus:
        1 "conditions" list CustomResourceDefinitionCondition,
        2 "acceptedNames" one CustomResourceDefinitionNames, 3 "storedVersions" list string,
        4 "observedGeneration" one int64;
    CustomResourceDefinitionVersion:
        1 "name" one string, 2 "served" one bool, 3 "storage" one bool, 4 "schema" one CustomResourceValidation,
        5 "subresources" one CustomResourceSubresources,
        6 "additionalPrinterColumns" list CustomResourceColumnDefinition, 7 "deprecated" one bool,
        8 "deprecationWarning" opt string, 9 "selectableFields" list SelectableField;
    CustomResourceSubresourceScale:
        1 "specReplicasPath" one string, 2 "statusReplicasPath" one string, 3 "labelSelectorPath" opt string;
    CustomResourceSubresourceStatus: ;
    CustomResourceSubresources:
        1 "status" one CustomResourceSubresourceStatus, 2 "scale" one CustomResourceSubresourceScale;
    CustomResourceValidation: 1 "openAPIV3Schema" one JSONSchemaProps;
    ExternalDocumentation: 1 "description" one string, 2 "url" one string;
    JSONSchemaProps:
        1 "id" one string, 2 "$schema" one string, 3 "$ref" opt string, 4 "description" one string,
        5 "type" one string, 6 "format" one string, 7 "title" one string, 8 "default" one json,
        9 "maximum" opt double, 10 "exclusiveMaximum" one bool, 11 "minimum" opt double,
        12 "exclusiveMinimum" one bool, 13 "maxLength" opt int64, 14 "minLength" opt int64,
        15 "pattern" one string, 16 "maxItems" opt int64, 17 "minItems" opt int64, 18 "uniqueItems" one bool,
        19 "multipleOf" opt double, 20 "enum" list json, 21 "maxProperties" opt int64,
        22 "minProperties" opt int64, 23 "required" list string, 24 "items" one schema_or_array,
        25 "allOf" list JSONSchemaProps, 26 "oneOf" list JSONSchemaProps, 27 "anyOf" list JSONSchemaProps,
        28 "not" one JSONSchemaProps, 29 "properties" map JSONSchemaProps,
        30 "additionalProperties" one schema_or_bool, 31 "patternProperties" map JSONSchemaProps,
        32 "dependencies" map schema_or_strings, 33 "additionalItems" one schema_or_bool,
        34 "definitions" map JSONSchemaProps, 35 "externalDocs" one ExternalDocumentation,
        36 "example" one json, 37 "nullable" one bool, 38 "x-kubernetes-preserve-unknown-fields" opt bool,
        39 "x-kubernetes-embedded-resource" one bool, 40 "x-kubernetes-int-or-string" one bool,
        41 "x-kubernetes-list-map-keys" list string, 42 "x-kubernetes-list-type" opt string,
        43 "x-kubernetes-map-type" opt string, 44 "x-kubernetes-validations" list ValidationRule;
    SelectableField: 1 "jsonPath" one string;
    ServiceReference: 1 "namespace" one string, 2 "name" one string, 3 "path" opt string, 4 "port" opt int32;
    ValidationRule:
        1 "rule" one string, 2 "message" one string, 3 "messageExpression" one string, 4 "reason" opt string,
        5 "fieldPath" one string, 6 "optionalOldSelf" opt bool;
    WebhookClientConfig: 1 "service" one ServiceReference, 2 "caBundle" one bytes, 3 "url" opt string;
    WebhookConversion: 2 "clientConfig" one WebhookClientConfig, 3 "conversionReviewVersions" list string;
    SchemaOrArray: 1 "schema" one JSONSchemaProps, 2 "array" list JSONSchemaProps;
    SchemaOrBool: 1 "allows" one bool, 2 "schema" one JSONSchemaProps;
    SchemaOrStrings: 1 "schema" one JSONSchemaProps, 2 "array" list string;
}
