//! Tests of trees and manifests.
