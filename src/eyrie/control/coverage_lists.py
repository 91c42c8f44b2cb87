"""Data: what this Eyrie does with each SageMaker operation. Each is in exactly one list; a test holds them to botocore.
botocore's.

*acts*: it does what it says. *stored*: the noun is a mere record, kept and given back. *refused*: answered with a
400 that says so, always where Create would have to start work that Eyrie cannot do yet, and then the noun's other
operations too: there is nothing to describe, list or delete.
"""

from __future__ import annotations

from dataclasses import dataclass

PAGE = "docs/reference/coverage.md"


@dataclass(frozen=True, slots=True)
class Area:
    """Operations that are refused for one reason. `why` completes the sentence "not supported by this Eyrie: ..."."""

    title: str
    why: str
    operations: frozenset[str]


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


ACTS = _names(
    """
    CreateModel DescribeModel ListModels DeleteModel CreateEndpointConfig DescribeEndpointConfig
    ListEndpointConfigs DeleteEndpointConfig CreateEndpoint DescribeEndpoint ListEndpoints UpdateEndpoint
    UpdateEndpointWeightsAndCapacities DeleteEndpoint AddTags ListTags DeleteTags
    CreateCompilationJob DescribeCompilationJob ListCompilationJobs StopCompilationJob DeleteCompilationJob
    CreateTransformJob DescribeTransformJob ListTransformJobs StopTransformJob
    CreateInferenceRecommendationsJob DescribeInferenceRecommendationsJob ListInferenceRecommendationsJobs
    StopInferenceRecommendationsJob ListInferenceRecommendationsJobSteps GetScalingConfigurationRecommendation
    CreateInferenceExperiment DescribeInferenceExperiment ListInferenceExperiments UpdateInferenceExperiment
    StartInferenceExperiment StopInferenceExperiment DeleteInferenceExperiment
    """
)

STORED = _names(
    """
    AssociateTrialComponent CreateAIWorkloadConfig CreateAction CreateAppImageConfig CreateArtifact
    CreateCodeRepository CreateContext CreateDataQualityJobDefinition CreateExperiment
    CreateModelBiasJobDefinition CreateModelExplainabilityJobDefinition CreateModelPackageGroup
    CreateModelQualityJobDefinition CreateNotebookInstanceLifecycleConfig CreateStudioLifecycleConfig CreateTrial
    CreateTrialComponent DeleteAIWorkloadConfig DeleteAction DeleteAppImageConfig DeleteArtifact
    DeleteCodeRepository DeleteContext DeleteDataQualityJobDefinition DeleteExperiment
    DeleteModelBiasJobDefinition DeleteModelExplainabilityJobDefinition DeleteModelPackageGroup
    DeleteModelQualityJobDefinition DeleteNotebookInstanceLifecycleConfig DeleteStudioLifecycleConfig DeleteTrial
    DeleteTrialComponent DescribeAIWorkloadConfig DescribeAction DescribeAppImageConfig DescribeArtifact
    DescribeCodeRepository DescribeContext DescribeDataQualityJobDefinition DescribeExperiment
    DescribeModelBiasJobDefinition DescribeModelExplainabilityJobDefinition DescribeModelPackageGroup
    DescribeModelQualityJobDefinition DescribeNotebookInstanceLifecycleConfig DescribeStudioLifecycleConfig
    DescribeTrial DescribeTrialComponent DisassociateTrialComponent ListAIWorkloadConfigs ListActions
    ListAppImageConfigs ListArtifacts ListCodeRepositories ListContexts ListDataQualityJobDefinitions
    ListExperiments ListModelBiasJobDefinitions ListModelExplainabilityJobDefinitions ListModelPackageGroups
    ListModelQualityJobDefinitions ListNotebookInstanceLifecycleConfigs ListStudioLifecycleConfigs
    ListTrialComponents ListTrials UpdateAction UpdateAppImageConfig UpdateArtifact UpdateCodeRepository
    UpdateContext UpdateExperiment UpdateNotebookInstanceLifecycleConfig UpdateTrial UpdateTrialComponent
    """
)

REFUSED: tuple[Area, ...] = (
    Area(
        "Training and tuning",
        "it trains no models yet",
        _names(
            """
            CreateAutoMLJob CreateAutoMLJobV2 CreateHyperParameterTuningJob CreateJob CreateTrainingJob
            CreateTrainingPlan CreateTrainingSession DeleteHyperParameterTuningJob DeleteJob
            DeleteTrainingJob DeleteTrainingSession DescribeAutoMLJob DescribeAutoMLJobV2
            DescribeHyperParameterTuningJob DescribeJob DescribeJobSchemaVersion DescribeReservedCapacity
            DescribeTrainingJob DescribeTrainingPlan DescribeTrainingPlanExtensionHistory
            DescribeTrainingSession ExtendTrainingPlan ListAutoMLJobs ListCandidatesForAutoMLJob
            ListHyperParameterTuningJobs ListJobSchemaVersions ListJobs ListTrainingJobs
            ListTrainingJobsForHyperParameterTuningJob ListTrainingPlans ListTrainingSessions
            ListUltraServersByReservedCapacity SearchTrainingPlanOfferings StartSession StopAutoMLJob
            StopHyperParameterTuningJob StopJob StopTrainingJob StopTrainingSession UpdateTrainingJob
            """
        ),
    ),
    Area(
        "Processing",
        "it runs no processing jobs yet",
        _names(
            """
            CreateProcessingJob DeleteProcessingJob DescribeProcessingJob ListProcessingJobs StopProcessingJob
            """
        ),
    ),
    Area(
        "Optimization, benchmarks of large models",
        "it optimizes and benchmarks no large models",
        _names(
            """
            CreateAIBenchmarkJob CreateAIRecommendationJob CreateOptimizationJob DeleteAIBenchmarkJob
            DeleteAIRecommendationJob DeleteOptimizationJob DescribeAIBenchmarkJob DescribeAIRecommendationJob
            DescribeOptimizationJob ListAIBenchmarkJobs ListAIRecommendationJobs ListOptimizationJobs
            StopAIBenchmarkJob StopAIRecommendationJob StopOptimizationJob
            """
        ),
    ),
    Area(
        "Model monitoring",
        "it runs no monitors yet",
        _names(
            """
            CreateMonitoringSchedule DeleteMonitoringSchedule DescribeMonitoringSchedule
            ListMonitoringAlertHistory ListMonitoringAlerts ListMonitoringExecutions
            ListMonitoringSchedules StartMonitoringSchedule StopMonitoringSchedule UpdateMonitoringAlert
            UpdateMonitoringSchedule
            """
        ),
    ),
    Area(
        "Pipelines and projects",
        "it runs no pipelines yet",
        _names(
            """
            CreatePipeline CreateProject DeletePipeline DeleteProject DescribePipeline
            DescribePipelineDefinitionForExecution DescribePipelineExecution DescribeProject
            DisableSagemakerServicecatalogPortfolio EnableSagemakerServicecatalogPortfolio
            GetSagemakerServicecatalogPortfolioStatus ListPipelineExecutionSteps ListPipelineExecutions
            ListPipelineParametersForExecution ListPipelineVersions ListPipelines ListProjects
            RetryPipelineExecution SendPipelineExecutionStepFailure SendPipelineExecutionStepSuccess
            StartPipelineExecution StopPipelineExecution UpdatePipeline UpdatePipelineExecution
            UpdatePipelineVersion UpdateProject
            """
        ),
    ),
    Area(
        "Inference components, experiments and routers",
        "its endpoints have whole instances, one model each, for now",
        _names(
            """
            CreateInferenceComponent CreateInferenceRouter DeleteEndpointPolicy
            DeleteInferenceComponent DeleteInferenceRouter
            DescribeInferenceComponent DescribeInferenceRouter
            GetEndpointPolicy ListInferenceComponents ListInferenceRouters
            PutEndpointPolicy UpdateInferenceComponent
            UpdateInferenceComponentRuntimeConfig UpdateInferenceRouter
            """
        ),
    ),
    Area(
        "Model registry and model cards",
        "it has no model registry yet",
        _names(
            """
            BatchDescribeModelPackage CreateAlgorithm CreateModelCard CreateModelCardExportJob
            CreateModelPackage DeleteAlgorithm DeleteModelCard DeleteModelPackage
            DeleteModelPackageGroupPolicy DescribeAlgorithm DescribeModelCard DescribeModelCardExportJob
            DescribeModelPackage GetModelPackageGroupPolicy ListAlgorithms ListModelCardExportJobs
            ListModelCardVersions ListModelCards ListModelMetadata ListModelPackages
            PutModelPackageGroupPolicy UpdateModelCard UpdateModelPackage
            """
        ),
    ),
    Area(
        "Lineage and search",
        "it keeps lineage nouns as records, but no graph of them and no index",
        _names(
            """
            AddAssociation DeleteAssociation DescribeLineageGroup GetLineageGroupPolicy
            GetSearchSuggestions ListAssociations ListLineageGroups ListResourceCatalogs QueryLineage
            Search
            """
        ),
    ),
    Area(
        "Feature store",
        "it has no feature store",
        _names(
            """
            CreateFeatureGroup DeleteFeatureGroup DescribeFeatureGroup DescribeFeatureMetadata
            ListFeatureGroups UpdateFeatureGroup UpdateFeatureMetadata
            """
        ),
    ),
    Area(
        "Clusters and quotas",
        "it manages no clusters",
        _names(
            """
            AttachClusterNodeNetworkInterface AttachClusterNodeVolume BatchAddClusterNodes
            BatchDeleteClusterNodes BatchRebootClusterNodes BatchReplaceClusterNodes CreateCluster
            CreateClusterExtension CreateClusterSchedulerConfig CreateComputeQuota DeleteCluster
            DeleteClusterExtension DeleteClusterSchedulerConfig DeleteComputeQuota DescribeCluster
            DescribeClusterEvent DescribeClusterExtension DescribeClusterNode DescribeClusterOperation
            DescribeClusterSchedulerConfig DescribeComputeQuota DetachClusterNodeVolume ListClusterEvents
            ListClusterExtensionVersions ListClusterExtensions ListClusterNodes ListClusterOperations
            ListClusterSchedulerConfigs ListClusters ListComputeQuotas StartClusterHealthCheck
            UpdateCluster UpdateClusterExtension UpdateClusterSchedulerConfig UpdateClusterSoftware
            UpdateComputeQuota
            """
        ),
    ),
    Area(
        "Notebooks, Studio, images, MLflow, partner apps",
        "it hosts no notebooks or apps",
        _names(
            """
            CreateApp CreateDomain CreateImage CreateImageVersion CreateMlflowApp
            CreateMlflowTrackingServer CreateNotebookInstance CreatePartnerApp
            CreatePartnerAppPresignedUrl CreatePresignedDomainUrl CreatePresignedMlflowAppUrl
            CreatePresignedMlflowTrackingServerUrl CreatePresignedNotebookInstanceUrl CreateSpace
            CreateUserProfile DeleteApp DeleteDomain DeleteImage DeleteImageVersion DeleteMlflowApp
            DeleteMlflowTrackingServer DeleteNotebookInstance DeletePartnerApp DeleteSpace
            DeleteUserProfile DescribeApp DescribeDomain DescribeImage DescribeImageVersion
            DescribeMlflowApp DescribeMlflowTrackingServer DescribeNotebookInstance DescribePartnerApp
            DescribeSpace DescribeUserProfile ListAliases ListApps ListDomains ListImageVersions
            ListImages ListMlflowApps ListMlflowTrackingServers ListNotebookInstances ListPartnerApps
            ListSpaces ListUserProfiles StartMlflowTrackingServer StartNotebookInstance
            StopMlflowTrackingServer StopNotebookInstance UpdateDomain UpdateImage UpdateImageVersion
            UpdateMlflowApp UpdateMlflowTrackingServer UpdateNotebookInstance UpdatePartnerApp UpdateSpace
            UpdateUserProfile
            """
        ),
    ),
    Area(
        "Hubs",
        "it has no model hub",
        _names(
            """
            CreateHub CreateHubContentPresignedUrls CreateHubContentReference DeleteHub DeleteHubContent
            DeleteHubContentReference DescribeHub DescribeHubContent ImportHubContent
            ListHubContentVersions ListHubContents ListHubs UpdateHub UpdateHubContent
            UpdateHubContentReference
            """
        ),
    ),
    Area(
        "Labelling and human review",
        "it employs no people",
        _names(
            """
            CreateFlowDefinition CreateHumanTaskUi CreateLabelingJob CreateWorkforce CreateWorkteam
            DeleteFlowDefinition DeleteHumanTaskUi DeleteWorkforce DeleteWorkteam DescribeFlowDefinition
            DescribeHumanTaskUi DescribeLabelingJob DescribeSubscribedWorkteam DescribeWorkforce
            DescribeWorkteam ListFlowDefinitions ListHumanTaskUis ListLabelingJobs
            ListLabelingJobsForWorkteam ListSubscribedWorkteams ListWorkforces ListWorkteams
            RenderUiTemplate StopLabelingJob UpdateWorkforce UpdateWorkteam
            """
        ),
    ),
    Area(
        "Edge devices",
        "it reaches no devices",
        _names(
            """
            CreateDeviceFleet CreateEdgeDeploymentPlan CreateEdgeDeploymentStage CreateEdgePackagingJob
            DeleteDeviceFleet DeleteEdgeDeploymentPlan DeleteEdgeDeploymentStage DeregisterDevices
            DescribeDevice DescribeDeviceFleet DescribeEdgeDeploymentPlan DescribeEdgePackagingJob
            GetDeviceFleetReport ListDeviceFleets ListDevices ListEdgeDeploymentPlans
            ListEdgePackagingJobs ListStageDevices RegisterDevices StartEdgeDeploymentStage
            StopEdgeDeploymentStage StopEdgePackagingJob UpdateDeviceFleet UpdateDevices
            """
        ),
    ),
)

KEPT = {
    "VpcConfig": "instances have no network of their own to attach",
    "ExecutionRoleArn": "there are no policies yet",
    "VolumeSizeInGB": "instances share the disk of the host",
    "InferenceAmiVersion": "instances do not boot an AMI",
    "ModelDataDownloadTimeoutInSeconds": "archives come from this Eyrie's own S3",
    "DataCaptureConfig with EnableCapture false": "it asks for nothing",
    "MetricsConfig": "every metric is told by instance too, each second, in any case",
    "WaitIntervalInSeconds of ALL_AT_ONCE": "there is one step, and nothing to wait between",
}

COMPANIONS = {
    "sagemaker-runtime": {
        "InvokeEndpoint": "acts (by the gateway), sessions included",
        "InvokeEndpointWithResponseStream": "acts (by the gateway)",
        "InvokeEndpointAsync": "acts (by dispatch), with an input in S3 or in the call",
    },
    "sts": {"GetCallerIdentity": "acts: an assumed role named Eyrie, of the account of the access key"},
    "iam": {
        "CreateRole": "stored: no policy is evaluated",
        "GetRole": "stored; the role Eyrie exists in every account",
        "ListRoles": "stored",
        "DeleteRole": "stored",
        "AttachRolePolicy": "stored: no policy is evaluated",
        "DetachRolePolicy": "stored",
        "ListAttachedRolePolicies": "stored",
        "ListRolePolicies": "answers none: inline policies are not kept",
        "ListInstanceProfilesForRole": "answers none",
        "GetUser": "refused as for any caller that is a role",
        "SimulatePrincipalPolicy": "answers allowed to everything: every principal is root until there are policies",
    },
    "logs": {
        "CreateLogGroup": "acts; a KMS key and a class are kept, and mean nothing",
        "DeleteLogGroup": "acts; of an endpoint's own group: what was printed until then",
        "DescribeLogGroups": "acts; an endpoint's are `/aws/sagemaker/Endpoints/NAME` and `/eyrie/Endpoints/NAME`",
        "PutRetentionPolicy": "acts: older events are not shown at once, and removed within moments",
        "DeleteRetentionPolicy": "acts",
        "CreateLogStream": "acts",
        "DeleteLogStream": "acts; an instance's own stream goes with the instance",
        "DescribeLogStreams": "acts; of an endpoint: one stream an instance, `VARIANT/INSTANCE`",
        "PutLogEvents": "acts; sequence tokens are taken and mean nothing, as on AWS",
        "GetLogEvents": "acts",
        "FilterLogEvents": "acts; patterns of terms, of JSON properties, of columns, and regular expressions (RE2)",
        "PutMetricFilter": "acts; over what instances print too",
        "DescribeMetricFilters": "acts",
        "DeleteMetricFilter": "acts",
        "TestMetricFilter": "acts",
        "StartQuery": "acts; CWLI: fields, display, filter, parse, stats, sort, limit, dedup",
        "GetQueryResults": "acts; results come when the query is over",
        "StopQuery": "acts",
        "DescribeQueries": "acts; of the last 200 queries since control started",
        "GetLogRecord": "acts; discovered fields are not among its fields",
        "PutQueryDefinition": "acts",
        "DescribeQueryDefinitions": "acts",
        "DeleteQueryDefinition": "acts",
        "TagResource": "acts, on log groups",
        "UntagResource": "acts, on log groups",
        "ListTagsForResource": "acts, on log groups",
        "TagLogGroup": "acts",
        "UntagLogGroup": "acts",
        "ListTagsLogGroup": "acts",
    },
    "cloudwatch": {
        "PutMetricData": "acts: values with counts, statistic sets",
        "GetMetricStatistics": "acts, with every extended statistic",
        "GetMetricData": "acts, with metric math and SEARCH",
        "ListMetrics": "acts",
        "PutDashboard": "acts: stored, and what is wrong with its body is told by place; nothing here draws it",
        "GetDashboard": "acts",
        "ListDashboards": "acts",
        "DeleteDashboards": "acts: all that are named, or none",
        "PutMetricAlarm": "acts: M of N, missing data, percentiles, math, bands; actions: topics, scaling policies",
        "PutCompositeAlarm": "acts, with suppressors",
        "DescribeAlarms": "acts",
        "DescribeAlarmsForMetric": "acts",
        "DescribeAlarmHistory": "acts",
        "SetAlarmState": "acts",
        "EnableAlarmActions": "acts",
        "DisableAlarmActions": "acts",
        "DeleteAlarms": "acts: all that are named, or none",
        "PutAnomalyDetector": "acts for single metrics; OutlierFilteringStrength and characteristics are kept only",
        "DescribeAnomalyDetectors": "acts",
        "DeleteAnomalyDetector": "acts",
        "TagResource": "acts on alarms",
        "UntagResource": "acts on alarms",
        "ListTagsForResource": "acts on alarms",
    },
    "events": {
        "PutRule": "acts: patterns and schedules, on the default bus",
        "DescribeRule": "acts",
        "DeleteRule": "acts",
        "EnableRule": "acts",
        "DisableRule": "acts",
        "ListRules": "acts",
        "ListRuleNamesByTarget": "acts",
        "PutTargets": "acts: API destinations, topics, log groups, and http or https addresses; others are refused",
        "RemoveTargets": "acts",
        "ListTargetsByRule": "acts",
        "PutEvents": "acts",
        "TestEventPattern": "acts",
        "ListEventBuses": "acts: the default bus",
        "DescribeEventBus": "acts: the default bus",
        "CreateConnection": "acts: API keys and basic authentication; OAuth is refused",
        "UpdateConnection": "acts",
        "DescribeConnection": "acts, without secrets",
        "ListConnections": "acts",
        "DeleteConnection": "acts",
        "CreateApiDestination": "acts; the rate limit is kept only",
        "UpdateApiDestination": "acts",
        "DescribeApiDestination": "acts",
        "ListApiDestinations": "acts",
        "DeleteApiDestination": "acts",
        "TagResource": "acts on rules",
        "UntagResource": "acts on rules",
        "ListTagsForResource": "acts on rules",
    },
    "sns": {
        "CreateTopic": "acts",
        "DeleteTopic": "acts",
        "ListTopics": "acts",
        "GetTopicAttributes": "acts",
        "SetTopicAttributes": "stored, the display name and policies",
        "Subscribe": "acts for http, https and sqs",
        "ConfirmSubscription": "acts; a 2xx answer to the confirmation request does as well",
        "Unsubscribe": "acts",
        "ListSubscriptions": "acts",
        "ListSubscriptionsByTopic": "acts",
        "GetSubscriptionAttributes": "acts",
        "SetSubscriptionAttributes": "acts: RawMessageDelivery, FilterPolicy, FilterPolicyScope",
        "Publish": "acts; messages are not signed",
        "PublishBatch": "acts",
        "TagResource": "acts on topics",
        "UntagResource": "acts on topics",
        "ListTagsForResource": "acts on topics",
    },
    "sqs": {
        "CreateQueue": "acts: standard queues; FIFO is refused",
        "GetQueueUrl": "acts",
        "ListQueues": "acts",
        "DeleteQueue": "acts, at once",
        "PurgeQueue": "acts, at once",
        "GetQueueAttributes": "acts",
        "SetQueueAttributes": "acts: delays, sizes, retention, waiting, visibility, RedrivePolicy; policies are kept",
        "SendMessage": "acts: durable before the answer",
        "SendMessageBatch": "acts",
        "ReceiveMessage": "acts: long polling, visibility time-out, dead-letter queue",
        "DeleteMessage": "acts, by the newest receipt",
        "DeleteMessageBatch": "acts",
        "ChangeMessageVisibility": "acts",
        "ChangeMessageVisibilityBatch": "acts",
    },
    "service-quotas": {
        "ListServices": "acts: sagemaker",
        "ListServiceQuotas": "acts; quota codes are made of names, and not AWS's",
        "ListAWSDefaultServiceQuotas": "acts",
        "GetServiceQuota": "acts",
        "GetAWSDefaultServiceQuota": "acts",
        "RequestServiceQuotaIncrease": "acts: granted at once, or PENDING (EYRIE_QUOTA_INCREASES)",
        "GetRequestedServiceQuotaChange": "acts",
        "ListRequestedServiceQuotaChangeHistory": "acts",
        "ListRequestedServiceQuotaChangeHistoryByQuota": "acts",
    },
    "application-autoscaling": {
        "RegisterScalableTarget": "acts: variants' DesiredInstanceCount; other dimensions are refused",
        "DeregisterScalableTarget": "acts: policies, alarms and scheduled actions go with it",
        "DescribeScalableTargets": "acts",
        "PutScalingPolicy": "acts: TargetTrackingScaling (eyrie:Fast besides) and StepScaling; predictive refused",
        "DeleteScalingPolicy": "acts, its alarms with it",
        "DescribeScalingPolicies": "acts",
        "DescribeScalingActivities": "acts, with IncludeNotScaledActivities",
        "PutScheduledAction": "acts: at, rate and cron, in any time zone",
        "DeleteScheduledAction": "acts",
        "DescribeScheduledActions": "acts",
        "GetPredictiveScalingForecast": "refused: there are no predictive policies",
        "TagResource": "acts, on scalable targets",
        "UntagResource": "acts",
        "ListTagsForResource": "acts",
    },
    "ecr": {
        "CreateRepository": "acts: images come by `eyrie image add`, not by a push; settings are kept",
        "DescribeRepositories": "acts",
        "DeleteRepository": "acts; endpoints that run its images go on",
        "DescribeImages": "acts",
        "ListImages": "acts",
        "BatchDeleteImage": "acts; endpoints that run them go on",
        "ListTagsForResource": "answers the tags that a repository was created with",
        "GetAuthorizationToken": "refused: there is no registry to log in to",
    },
    "s3": {
        "buckets": "acts: create, head, list, delete, location, tagging",
        "objects": "acts: put, get with ranges, head, copy, delete (many), list v1 and v2, multipart, presigned URLs",
    },
}
