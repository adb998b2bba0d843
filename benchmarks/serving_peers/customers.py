"""The peers' request model, written by hand: a customer of the table `simulated`."""

from typing import Literal

from pydantic import BaseModel, Field

YesNo = Literal["No", "Yes"]
Lines = Literal["No", "No phone service", "Yes"]
AddOn = Literal["No", "No internet service", "Yes"]


class Customer(BaseModel):
    tenure: int = Field(ge=0, le=240)
    MonthlyCharges: float = Field(ge=0, le=500)
    TotalCharges: float = Field(ge=0, le=20_000)
    Partner: YesNo
    Dependents: YesNo
    PhoneService: YesNo
    MultipleLines: Lines
    InternetService: Literal["DSL", "Fiber optic", "No"]
    OnlineSecurity: AddOn
    OnlineBackup: AddOn
    DeviceProtection: AddOn
    TechSupport: AddOn
    StreamingTV: AddOn
    StreamingMovies: AddOn
    Contract: Literal["Month-to-month", "One year", "Two year"]
    PaperlessBilling: YesNo
    PaymentMethod: Literal["Bank transfer (automatic)", "Credit card (automatic)", "Electronic check", "Mailed check"]


class Request(BaseModel):
    customers: list[Customer]


class Answer(BaseModel):
    churn_probability: list[float]
