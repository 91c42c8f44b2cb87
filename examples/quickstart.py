"""The README's example: a scikit-learn model behind an endpoint, with plain boto3. First: `eval "$(eyrie env)"`."""

import tarfile

import boto3
import joblib
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

model = LogisticRegression(max_iter=500).fit(*load_iris(return_X_y=True))
joblib.dump(model, "model.joblib")
with tarfile.open("model.tar.gz", "w:gz") as archive:
    archive.add("model.joblib")

s3, sagemaker, runtime = (boto3.client(name) for name in ("s3", "sagemaker", "sagemaker-runtime"))
s3.create_bucket(Bucket="models")
s3.upload_file("model.tar.gz", "models", "iris/model.tar.gz")
sagemaker.create_model(
    ModelName="iris",
    PrimaryContainer={"Image": "eyrie/sklearn", "ModelDataUrl": "s3://models/iris/model.tar.gz"},
    ExecutionRoleArn="arn:aws:iam::123456789012:role/any",
)
variant = {"VariantName": "main", "ModelName": "iris", "InstanceType": "ml.m5.large", "InitialInstanceCount": 2}
sagemaker.create_endpoint_config(EndpointConfigName="iris", ProductionVariants=[variant])
sagemaker.create_endpoint(EndpointName="iris", EndpointConfigName="iris")
sagemaker.get_waiter("endpoint_in_service").wait(EndpointName="iris", WaiterConfig={"Delay": 1})

reply = runtime.invoke_endpoint(EndpointName="iris", ContentType="text/csv", Body="5.1,3.5,1.4,0.2")
print(reply["Body"].read().decode(), "from variant", reply["InvokedProductionVariant"])
