"""The endpoints that the official OpenAI client speaks to, seen from another side: an image
request is a job of the farm at `interactive` priority."""
