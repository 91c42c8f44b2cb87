"""Floor 4, control: answers the APIs, and drives observe -> decide -> persist -> act for every endpoint."""
