//! The actions that policies name: S3's, and the few of other services that a tile server has to do with.
//!
//! Source: "Actions, resources, and condition keys for Amazon S3", Service Authorization Reference. Those
//! of access grants, batch jobs, S3 on Outposts and object Lambda are left out: whoever grants these to a
//! tile server is told that there is no such action here, which is as true as 'too much'.

use super::pattern::action_matches;

/// Asked to read a tile.
pub const GET_OBJECT: &str = "s3:GetObject";
/// Asked when a tile is missing.
pub const LIST_BUCKET: &str = "s3:ListBucket";
/// Asked to become a role.
pub const ASSUME_ROLE: &str = "sts:AssumeRole";
/// Asked by S3 for objects under SSE-KMS.
pub const DECRYPT: &str = "kms:Decrypt";
/// Asked to hear of changes.
pub const QUEUE: [&str; 2] = ["sqs:ReceiveMessage", "sqs:DeleteMessage"];

/// Reading takes none of these, but they let the set-up be examined and give away nothing.
pub(super) const HARMLESS: [&str; 7] = [
    "s3:GetBucketLocation",
    "s3:GetBucketPolicyStatus",
    "s3:GetBucketPublicAccessBlock",
    "s3:GetEncryptionConfiguration",
    "sqs:ChangeMessageVisibility",
    "sqs:GetQueueAttributes",
    "sts:GetCallerIdentity",
];

/// Names of API calls that people write for actions, and what they mean.
pub(super) const CALLS: [(&str, &str); 7] = [
    ("s3:HeadObject", GET_OBJECT),
    ("s3:ListObjects", LIST_BUCKET),
    ("s3:ListObjectsV2", LIST_BUCKET),
    ("s3:HeadBucket", LIST_BUCKET),
    ("s3:ReadObject", GET_OBJECT),
    ("s3:Read", GET_OBJECT),
    ("s3:List", LIST_BUCKET),
];

/// Which of the actions known here a pattern matches.
pub(super) fn matched(pattern: &str) -> Vec<String> {
    let s3 = S3.split_ascii_whitespace().map(|name| format!("s3:{name}"));
    let others = OTHERS.iter().map(|&name| name.to_owned());
    s3.chain(others)
        .filter(|action| action_matches(pattern, action))
        .collect()
}

/// The known action that was probably meant.
pub(super) fn nearest(written: &str) -> Option<String> {
    let lower = written.to_ascii_lowercase();
    if let Some((_, meant)) = CALLS
        .iter()
        .find(|(call, _)| call.eq_ignore_ascii_case(written))
    {
        return Some((*meant).to_owned());
    }
    let distance =
        |action: &String| strsim::damerau_levenshtein(&lower, &action.to_ascii_lowercase());
    // `GetObject` and `s3.GetObject` are not far from the right one either.
    matched("*")
        .into_iter()
        .min_by_key(distance)
        .filter(|action| distance(action) <= (action.len() / 3).max(3))
}

/// Whether it changes something, by its name.
pub(super) fn writes(action: &str) -> bool {
    let name = action.split_once(':').map_or(action, |(_, name)| name);
    let verbs = [
        "Put",
        "Delete",
        "Create",
        "Abort",
        "Restore",
        "Replicate",
        "Bypass",
        "Object",
        "Update",
        "Tag",
        "Untag",
        "Pause",
        "Initiate",
    ];
    verbs.iter().any(|verb| name.starts_with(verb))
}

const OTHERS: [&str; 14] = [
    "sts:AssumeRole",
    "sts:AssumeRoleWithWebIdentity",
    "sts:GetCallerIdentity",
    "sts:TagSession",
    "kms:Decrypt",
    "kms:Encrypt",
    "kms:GenerateDataKey",
    "kms:DescribeKey",
    "sqs:ReceiveMessage",
    "sqs:DeleteMessage",
    "sqs:ChangeMessageVisibility",
    "sqs:GetQueueAttributes",
    "sqs:PurgeQueue",
    "sqs:SendMessage",
];

const S3: &str = "
AbortMultipartUpload BypassGovernanceRetention CreateAccessPoint CreateBucket CreateJob
CreateMultiRegionAccessPoint DeleteAccessPoint DeleteAccessPointPolicy DeleteBucket
DeleteBucketOwnershipControls DeleteBucketPolicy DeleteBucketWebsite DeleteJobTagging DeleteObject
DeleteObjectTagging DeleteObjectVersion DeleteObjectVersionTagging DeleteMultiRegionAccessPoint
DeleteStorageLensConfiguration DescribeJob DescribeMultiRegionAccessPointOperation
GetAccelerateConfiguration GetAccessPoint GetAccessPointPolicy GetAccessPointPolicyStatus
GetAccountPublicAccessBlock GetAnalyticsConfiguration GetBucketAcl GetBucketCORS GetBucketLocation
GetBucketLogging GetBucketMetadataTableConfiguration GetBucketNotification
GetBucketObjectLockConfiguration GetBucketOwnershipControls GetBucketPolicy GetBucketPolicyStatus
GetBucketPublicAccessBlock GetBucketRequestPayment GetBucketTagging GetBucketVersioning
GetBucketWebsite GetEncryptionConfiguration GetIntelligentTieringConfiguration
GetInventoryConfiguration GetLifecycleConfiguration GetMetricsConfiguration
GetMultiRegionAccessPoint GetMultiRegionAccessPointPolicy GetObject GetObjectAcl
GetObjectAttributes GetObjectLegalHold GetObjectRetention GetObjectTagging GetObjectTorrent
GetObjectVersion GetObjectVersionAcl GetObjectVersionAttributes GetObjectVersionForReplication
GetObjectVersionTagging GetObjectVersionTorrent GetReplicationConfiguration
GetStorageLensConfiguration GetStorageLensDashboard InitiateReplication ListAccessPoints
ListAllMyBuckets ListBucket ListBucketMultipartUploads ListBucketVersions ListJobs
ListMultiRegionAccessPoints ListMultipartUploadParts ListStorageLensConfigurations
ListTagsForResource ObjectOwnerOverrideToBucketOwner PauseReplication PutAccelerateConfiguration
PutAccessPointPolicy PutAccessPointPublicAccessBlock PutAccountPublicAccessBlock
PutAnalyticsConfiguration PutBucketAcl PutBucketCORS PutBucketLogging PutBucketNotification
PutBucketObjectLockConfiguration PutBucketOwnershipControls PutBucketPolicy
PutBucketPublicAccessBlock PutBucketRequestPayment PutBucketTagging PutBucketVersioning
PutBucketWebsite PutEncryptionConfiguration PutIntelligentTieringConfiguration
PutInventoryConfiguration PutLifecycleConfiguration PutMetricsConfiguration
PutMultiRegionAccessPointPolicy PutObject PutObjectAcl PutObjectLegalHold PutObjectRetention
PutObjectTagging PutObjectVersionAcl PutObjectVersionTagging PutReplicationConfiguration
PutStorageLensConfiguration ReplicateDelete ReplicateObject ReplicateTags RestoreObject
TagResource UntagResource UpdateJobPriority UpdateJobStatus
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_meant_is_found() {
        for (written, meant) in [
            ("s3:GetObjet", "s3:GetObject"),
            ("GetObject", "s3:GetObject"),
            ("s3.GetObject", "s3:GetObject"),
            ("s3:HeadObject", "s3:GetObject"),
            ("s3:listobjectsv2", "s3:ListBucket"),
            ("s3:LisBucket", "s3:ListBucket"),
        ] {
            assert_eq!(nearest(written).as_deref(), Some(meant), "{written}");
        }
        assert_eq!(nearest("dynamodb:BatchWriteItemsOfATable"), None);
    }

    #[test]
    fn a_wildcard_names_all_that_it_allows() {
        assert_eq!(matched("s3:getobject"), ["s3:GetObject"]);
        assert!(matched("s3:Get*").len() > 30);
        assert!(matched("s3:Nothing*").is_empty());
        assert!(writes("s3:PutObject") && !writes("s3:GetObject"));
    }
}
